//! Monotonic time, and what Redis's clock shows at the same moment.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Until Redis has answered, this machine's clock stands in: all workers of a host then agree where windows begin.
pub(crate) struct Clock {
    started: Instant,
    epoch_us: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), epoch_us: microseconds(epoch) }
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
        self.epoch_us = redis_us.saturating_sub(self.monotonic_us(at));
    }
}

fn microseconds(duration: Duration) -> u64 {
    duration.as_micros() as u64
}
