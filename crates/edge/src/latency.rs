//! A histogram of durations with a bounded relative error, for one window of time.

use std::time::Duration;

/// Each power of two is split into this many buckets, so that a bucket is at most 1/8 wide and its middle off by 7 %.
const STEPS_LOG2: u32 = 3;
/// Enough for 2^40 microseconds.
const BUCKETS: usize = 41 << STEPS_LOG2;

/// Counts of durations, to the microsecond below 16 µs and in steps of about an eighth above.
#[derive(Debug)]
pub(crate) struct Latencies {
    counts: Box<[u32; BUCKETS]>,
    total: u32,
}

impl Latencies {
    pub(crate) fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
    }

    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// The duration that `share` of the recorded ones did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (f64::from(self.total) * share).ceil() as u32;
        let mut seen = 0;
        self.counts.iter().enumerate().find_map(|(index, count)| {
            seen += count;
            (seen >= rank && *count > 0).then(|| Duration::from_micros(middle(index)))
        })
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }
}

fn bucket(micros: u64) -> usize {
    let steps = 1 << STEPS_LOG2;
    if micros < steps {
        return micros as usize;
    }
    let power = micros.ilog2();
    let step = (micros >> (power - STEPS_LOG2)) & (steps - 1);
    ((((power - STEPS_LOG2 + 1) as usize) << STEPS_LOG2) + step as usize).min(BUCKETS - 1)
}

fn middle(bucket: usize) -> u64 {
    let steps = 1 << STEPS_LOG2;
    let bucket = bucket as u64;
    if bucket < steps {
        return bucket;
    }
    let shift = (bucket >> STEPS_LOG2) - 1;
    let start = (steps + (bucket & (steps - 1))) << shift;
    start + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_found_again_with_an_error_below_seven_percent() {
        for micros in (0..10_000).chain((10_000..100_000_000).step_by(9_973)) {
            let found = middle(bucket(micros)) as f64;
            assert!((found - micros as f64).abs() <= micros as f64 * 0.07, "{micros} was found as {found}");
        }
    }

    #[test]
    fn quantiles_come_from_the_recorded_durations_alone() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.99), None);
        for _ in 0..99 {
            latencies.record(Duration::from_micros(5));
        }
        latencies.record(Duration::from_secs(3));
        assert_eq!(latencies.quantile(0.99), Some(Duration::from_micros(5)));
        assert!(latencies.quantile(1.0).unwrap() > Duration::from_millis(2_800));
        latencies.clear();
        assert_eq!(latencies.quantile(0.99), None);
        latencies.record(Duration::MAX);
        assert!(latencies.quantile(0.5).is_some());
    }
}
