//! How good an entry is at a moment. Pure.
//!
//! An entry is answered with from memory until `memory_ms`; then Redis is asked whether it has a newer one. Until `fresh_ms` it
//! is as good as new, and until `expires_ms` it may stand in for one that cannot be had in time (RFC 5861).

use std::time::Duration;

/// Loads that take less are not worth doing early.
const SHORTEST_LOAD_MS: u32 = 1;

/// The times of an entry, in milliseconds of the process's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) memory_ms: u64,
    pub(crate) fresh_ms: u64,
    pub(crate) expires_ms: u64,
    /// How long its load took.
    pub(crate) load_ms: u32,
}

/// What is to be done with an entry that is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Answer with it.
    Fresh,
    /// Answer with it, and load it anew meanwhile.
    Early,
    /// Look for a newer one; it stands in should that take long or fail.
    Old,
    /// It is of no use.
    Spent,
}

impl Times {
    /// Those of a value that is kept in memory for `memory` and nowhere else.
    pub(crate) fn alone(now_ms: u64, memory: Duration) -> Self {
        let until_ms = now_ms + memory.as_millis() as u64;
        Self { memory_ms: until_ms, fresh_ms: until_ms, expires_ms: until_ms, load_ms: 0 }
    }

    /// Judges the entry. `draw` gives a number above 0 and up to 1, each as likely as any other.
    ///
    /// Early is decided as XFetch does (Vattani, Chierichetti, Lowenstein, "Optimal probabilistic cache stampede prevention",
    /// VLDB 2015) with β = 1: the nearer the end and the longer the load, the likelier. With the time of one load left it is
    /// 37 %, with that of five 0.7 %.
    pub(crate) fn at(&self, now_ms: u64, draw: impl FnOnce() -> f64) -> Freshness {
        if now_ms >= self.expires_ms {
            return Freshness::Spent;
        }
        if now_ms >= self.memory_ms {
            return Freshness::Old;
        }
        let load_ms = f64::from(self.load_ms);
        let left_ms = (self.fresh_ms - now_ms) as f64;
        // No draw is so unlikely that it would matter sooner.
        let is_near = self.load_ms >= SHORTEST_LOAD_MS && left_ms < 40.0 * load_ms;
        if is_near && load_ms * -draw().ln() >= left_ms { Freshness::Early } else { Freshness::Fresh }
    }

    /// Whether it may be answered with before a newer one has been found, for `window` after it was fresh.
    pub(crate) fn may_stand_in(&self, now_ms: u64, window: Duration) -> bool {
        now_ms < self.expires_ms.min(self.fresh_ms.saturating_add(window.as_millis() as u64))
    }

    /// How long it is answered with from memory.
    pub(crate) fn left(&self, now_ms: u64) -> Duration {
        Duration::from_millis(self.memory_ms.saturating_sub(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { memory_ms: 500, fresh_ms: 1_000, expires_ms: 5_000, load_ms: 10 };

    #[test]
    fn an_entry_grows_old_and_is_spent() {
        let never_early = || 1.0;
        for (now_ms, expected) in [
            (0, Freshness::Fresh),
            (499, Freshness::Fresh),
            (500, Freshness::Old),
            (4_999, Freshness::Old),
            (5_000, Freshness::Spent),
        ] {
            assert_eq!(TIMES.at(now_ms, never_early), expected, "at {now_ms}");
        }
    }

    #[test]
    fn it_stands_in_for_a_window_and_never_beyond_its_end() {
        let window = Duration::from_secs(2);
        for (now_ms, expected) in [(0, true), (2_999, true), (3_000, false)] {
            assert_eq!(TIMES.may_stand_in(now_ms, window), expected, "at {now_ms}");
        }
        assert!(TIMES.may_stand_in(4_999, Duration::MAX));
        assert!(!TIMES.may_stand_in(5_000, Duration::MAX));
    }

    #[test]
    fn early_is_as_likely_as_xfetch_says() {
        let times = Times { memory_ms: 10_000, fresh_ms: 10_000, expires_ms: 10_000, load_ms: 100 };
        let draws = 100_000;
        for (loads_left, expected) in [(1.0_f64, 0.368), (2.0, 0.135), (3.0, 0.050), (5.0, 0.0067), (50.0, 0.0)] {
            let now_ms = 10_000 - (loads_left * 100.0) as u64;
            let mut random = fastrand::Rng::with_seed(7);
            let early = (0..draws).filter(|_| times.at(now_ms, || 1.0 - random.f64()) == Freshness::Early).count();
            let share = early as f64 / f64::from(draws);
            assert!((share - expected).abs() < 0.006, "{share} with {loads_left} loads left");
        }
    }

    #[test]
    fn what_was_loaded_in_no_time_is_never_early() {
        let times = Times { load_ms: 0, memory_ms: 1_000, ..TIMES };
        assert_eq!(times.at(999, || f64::MIN_POSITIVE), Freshness::Fresh);
    }
}
