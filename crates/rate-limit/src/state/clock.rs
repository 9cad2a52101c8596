//! Monotonic time, and what Redis's clock shows at the same moment.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Until Redis has answered, this machine's clock stands in: all workers of a host then agree where windows begin.
pub(crate) struct Clock {
    started: Instant,
    epoch_us: u64,
    is_known: bool,
    has_stepped: bool,
}

/// Redis's clock has been set when it is off by more than this; no reply is awaited so long.
const STEP_US: u64 = 1_000_000;

impl Clock {
    pub(crate) fn new() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), epoch_us: microseconds(epoch), is_known: false, has_stepped: false }
    }

    /// Microseconds since this clock was made.
    pub(crate) fn monotonic_us(&self, now: Instant) -> u64 {
        microseconds(now.saturating_duration_since(self.started))
    }

    /// Redis's time in microseconds since the Unix epoch.
    pub(crate) fn redis_us(&self, now: Instant) -> u64 {
        self.epoch_us + self.monotonic_us(now)
    }

    pub(crate) fn set(&mut self, redis_us: u64, at: Instant) {
        let epoch_us = redis_us.saturating_sub(self.monotonic_us(at));
        self.has_stepped |= self.is_known && epoch_us.abs_diff(self.epoch_us) > STEP_US;
        (self.epoch_us, self.is_known) = (epoch_us, true);
    }

    /// Whether somebody has set Redis's clock since this was asked last.
    pub(crate) fn take_step(&mut self) -> bool {
        std::mem::take(&mut self.has_stepped)
    }
}

fn microseconds(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_once_and_one_that_drifts_is_not() {
        let (mut clock, start) = (Clock::new(), Instant::now());
        let mut steps = [0, 900_000, 0, 3_600_000_000, 3_600_000_000, 0].map(|off| {
            clock.set(1_000_000_000_000 + off, start);
            clock.take_step()
        });
        assert_eq!(steps, [false, false, false, true, false, true]);
        steps.fill(clock.take_step());
        assert_eq!(steps, [false; 6]);
    }
}
