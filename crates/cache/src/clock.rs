//! The two clocks of the cache: this process's monotonic one, and an estimate of Redis's. Wall clocks are never compared.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Where the milliseconds begin: ten years, so that what was before this process has a time, too, and 0 can mean "never".
const BEGINNING_MS: u64 = 10 * 366 * 24 * 3600 * 1000;

/// Reads monotonic milliseconds, and Redis's microseconds once a script has told them.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    /// Redis's time when this process's clock stood at zero; 0 while unknown.
    redis_origin_us: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), redis_origin_us: AtomicU64::new(0) }
    }

    /// Milliseconds of this process's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        let elapsed = self.origin.elapsed();
        // `as_millis` divides 128 bits, which every hit would pay for.
        BEGINNING_MS + elapsed.as_secs() * 1000 + u64::from(elapsed.subsec_millis())
    }

    /// Microseconds of this process's clock.
    pub(crate) fn now_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    /// Takes the time a script told, which was sent at `sent_us`. The estimate runs ahead of Redis by the way there, so
    /// that entries are judged too old rather than too young.
    pub(crate) fn learn(&self, sent_us: u64, redis_us: u64) {
        let origin = redis_us.saturating_sub(sent_us);
        self.redis_origin_us.store(origin, Ordering::Relaxed);
    }

    /// Redis's time now, if it was ever told.
    pub(crate) fn redis_now_us(&self) -> Option<u64> {
        match self.redis_origin_us.load(Ordering::Relaxed) {
            0 => None,
            origin => Some(origin + self.now_us()),
        }
    }
}
