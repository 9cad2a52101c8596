//! Exponential back-off with proportional jitter.

use std::time::Duration;

/// How the waits between tries grow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The wait after the first failure, before jitter.
    pub base: Duration,
    /// The longest wait, before jitter.
    pub cap: Duration,
    /// How far a wait may lie from its nominal length, as a part of it: 0.2 means ± 20 %. Range 0 to 1.
    pub jitter: f64,
}

impl Backoff {
    /// The wait before the next try after `failures` failures in a row; none after none.
    ///
    /// `random` is uniform in 0 to 1 and chooses the place within the jitter. The result is at most `cap · (1 + jitter)`.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let nominal = 2_u32
            .checked_pow(doublings)
            .and_then(|factor| self.base.checked_mul(factor))
            .map_or(self.cap, |wait| wait.min(self.cap));
        spread(nominal, self.jitter, random)
    }
}

/// `nominal` moved by up to ± `jitter` of itself.
pub(crate) fn spread(nominal: Duration, jitter: f64, random: f64) -> Duration {
    let factor = 1.0 + jitter.clamp(0.0, 1.0) * (2.0 * random.clamp(0.0, 1.0) - 1.0);
    Duration::try_from_secs_f64(nominal.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXACT: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(30), jitter: 0.0 };

    #[test]
    fn waits_double_from_the_base_up_to_the_cap() {
        let waits = [(0, 0), (1, 100), (2, 200), (3, 400), (9, 25_600), (10, 30_000), (64, 30_000), (u32::MAX, 30_000)];
        for (failures, milliseconds) in waits {
            assert_eq!(EXACT.delay(failures, 0.5), Duration::from_millis(milliseconds), "after {failures} failures");
        }
    }

    #[test]
    fn jitter_reaches_both_ends_even_for_a_base_of_one_second() {
        let backoff = Backoff { base: Duration::from_secs(1), jitter: 0.2, ..EXACT };
        assert_eq!(backoff.delay(1, 0.0), Duration::from_millis(800));
        assert_eq!(backoff.delay(1, 1.0), Duration::from_millis(1200));
    }

    proptest! {
        #[test]
        fn a_wait_stays_within_its_jitter_and_never_shrinks_with_more_failures(
            base_ms in 1_u64..10_000,
            cap_ms in 1_u64..100_000,
            jitter in 0.0_f64..=1.0,
            failures in 1_u32..200,
            random in 0.0_f64..=1.0,
        ) {
            let (base, cap) = (Duration::from_millis(base_ms), Duration::from_millis(cap_ms));
            let backoff = Backoff { base, cap, jitter };
            let nominal = Backoff { jitter: 0.0, ..backoff }.delay(failures, random).as_secs_f64();
            let wait = backoff.delay(failures, random).as_secs_f64();
            prop_assert!(wait >= nominal * (1.0 - jitter) - 1e-6);
            prop_assert!(wait <= nominal * (1.0 + jitter) + 1e-6);
            prop_assert!(backoff.delay(failures + 1, random).as_secs_f64() >= wait - 1e-6);
        }

        #[test]
        fn no_input_panics(base in any::<u64>(), cap in any::<u64>(), failures in any::<u32>(), jitter in any::<f64>(), random in any::<f64>()) {
            let backoff = Backoff { base: Duration::from_nanos(base), cap: Duration::from_secs(cap), jitter };
            backoff.delay(failures, random);
        }
    }
}
