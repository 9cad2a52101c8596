//! Latencies of a test, kept as counts in buckets that are never wider than 1/32 of their value.

use std::time::Duration;

/// Buckets per power of two.
const STEPS: u64 = 32;

/// A log-linear histogram of microseconds (the scheme of HdrHistogram), with a relative error of at most 3.2 %.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Histogram {
    /// Adds one value.
    pub fn record(&mut self, value: Duration) {
        let index = bucket(u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
        if self.counts.len() <= index {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// Adds all values of another histogram.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The largest value, exactly.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The value below or at which the share `quantile` (0 to 1) of all values lies, rounded up to the end of its bucket; zero when
    /// there are none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = ((self.total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(upper_end(index)).min(self.max);
            }
        }
        self.max
    }

    /// The median.
    pub fn p50(&self) -> Duration {
        self.quantile(0.50)
    }

    /// The 99th percentile.
    pub fn p99(&self) -> Duration {
        self.quantile(0.99)
    }
}

/// Values below 32 have a bucket each; above, every power of two is cut into 32 steps.
fn bucket(value: u64) -> usize {
    let index = if value < STEPS {
        value
    } else {
        let power = u64::from(value.ilog2()) - 5;
        STEPS * power + (value >> power)
    };
    usize::try_from(index).expect("there are fewer than 2,000 buckets")
}

/// The largest value in a bucket.
fn upper_end(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let power = index / STEPS - 1;
    let step = index % STEPS + STEPS;
    ((step + 1) << power).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_the_bucket_is_narrow() {
        for value in (0..100_000).chain([1 << 40, u64::MAX >> 1, u64::MAX]) {
            let end = upper_end(bucket(value));
            assert!(end >= value, "{value} is above the end of its bucket, {end}");
            assert!(end - value <= value / STEPS, "the bucket of {value} reaches to {end}");
        }
    }

    #[test]
    fn quantiles_of_a_thousand_milliseconds() {
        let mut histogram = Histogram::default();
        (1..=1_000).for_each(|value| histogram.record(Duration::from_millis(value)));
        let near = |found: Duration, expected: u64| {
            let found = found.as_millis() as f64;
            assert!((found / expected as f64 - 1.0).abs() < 0.032, "{found} is not near {expected}");
        };
        near(histogram.p50(), 500);
        near(histogram.p99(), 990);
        assert_eq!(histogram.quantile(1.0), Duration::from_secs(1));
        assert_eq!(histogram.max(), Duration::from_secs(1));
    }

    #[test]
    fn merging_counts_everything_once() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.record(Duration::from_millis(1));
        other.record(Duration::from_secs(9));
        one.merge(&other);
        assert_eq!((one.count(), one.max()), (2, Duration::from_secs(9)));
        assert_eq!(Histogram::default().p99(), Duration::ZERO);
    }
}
