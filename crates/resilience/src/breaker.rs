//! A circuit breaker that counts failures in a row and the share of failures in a window.
//!
//! It follows Nygard's pattern (*Release It!*, "Circuit Breaker"); the figures that are not configured are the same for
//! every dependency.

use std::time::{Duration, Instant};

use crate::backoff::{Backoff, spread};

/// Successful probes in a row that close a half-open breaker.
const PROBES_TO_CLOSE: u32 = 3;
/// The window in which the share of failures is counted, and how many calls make a share meaningful.
const WINDOW: Duration = Duration::from_secs(10);
const WINDOW_CALLS: u32 = 20;
/// Keeps the breakers of many processes from probing in step.
const JITTER: f64 = 0.2;

/// When a breaker opens and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open it; at least 1.
    pub failures: u32,
    /// How long it stays open the first time; doubles with each failed probe.
    pub open: Duration,
    /// The longest it stays open between two probes.
    pub max_open: Duration,
}

/// Whether a call may go out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Go ahead, and report how it ended.
    Call,
    /// Go ahead: this call finds out whether the dependency is back. Report how it ended.
    Probe,
    /// Do without.
    Refused {
        /// How long until a call may be let through.
        retry_in: Duration,
    },
}

/// What a breaker is doing, for health pages and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Calls go out.
    Closed,
    /// No call goes out.
    Open,
    /// One call at a time goes out to try.
    HalfOpen,
}

/// The breaker of one dependency. See the crate's page for its rules.
#[derive(Debug, Clone)]
pub struct Breaker {
    config: BreakerConfig,
    phase: Phase,
    /// How many times it has opened since it was last closed.
    openings: u32,
}

#[derive(Debug, Clone)]
enum Phase {
    Closed {
        failures_in_a_row: u32,
        window: Window,
    },
    Open {
        until: Instant,
    },
    /// `probe_expires` is set while a probe is out.
    HalfOpen {
        successes: u32,
        probe_expires: Option<Instant>,
    },
}

#[derive(Debug, Clone, Default)]
struct Window {
    started: Option<Instant>,
    calls: u32,
    failures: u32,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, phase: Phase::closed(), openings: 0 }
    }

    /// Asks to make a call at `now`.
    pub fn permit(&mut self, now: Instant) -> Permit {
        let successes = match self.phase {
            Phase::Closed { .. } => return Permit::Call,
            Phase::Open { until } if now < until => return refused(until, now),
            Phase::HalfOpen { probe_expires: Some(expires), .. } if now < expires => return refused(expires, now),
            Phase::Open { .. } => 0,
            Phase::HalfOpen { successes, .. } => successes,
        };
        self.phase = Phase::HalfOpen { successes, probe_expires: Some(now + self.config.open) };
        Permit::Probe
    }

    /// Reports that a permitted call was answered.
    pub fn success(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Closed { failures_in_a_row, window } => {
                *failures_in_a_row = 0;
                window.count(now);
            }
            Phase::Open { .. } => {}
            Phase::HalfOpen { successes, probe_expires } => {
                *successes += 1;
                *probe_expires = None;
                if *successes >= PROBES_TO_CLOSE {
                    *self = Self::new(self.config);
                }
            }
        }
    }

    /// Reports that a permitted call failed because of the dependency.
    pub fn failure(&mut self, now: Instant) {
        let opens = match &mut self.phase {
            Phase::Closed { failures_in_a_row, window } => {
                *failures_in_a_row += 1;
                window.count(now);
                window.failures += 1;
                *failures_in_a_row >= self.config.failures || window.is_mostly_failures()
            }
            Phase::Open { .. } => false,
            Phase::HalfOpen { .. } => true,
        };
        if opens {
            self.open(now);
        }
    }

    /// What it is doing. An open breaker becomes half-open with the first call after its time, not by itself.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    fn open(&mut self, now: Instant) {
        self.openings = self.openings.saturating_add(1);
        let waits = Backoff { base: self.config.open, cap: self.config.max_open, jitter: 0.0 };
        let wait = spread(waits.delay(self.openings, 0.0), JITTER, fastrand::f64());
        self.phase = Phase::Open { until: now + wait };
    }
}

impl Phase {
    fn closed() -> Self {
        Self::Closed { failures_in_a_row: 0, window: Window::default() }
    }
}

impl Window {
    /// Counts a call, in a new window when the old one is over.
    fn count(&mut self, now: Instant) {
        let is_over = |started: Instant| now.duration_since(started) >= WINDOW;
        if self.started.is_none_or(is_over) {
            *self = Self { started: Some(now), ..Self::default() };
        }
        self.calls += 1;
    }

    fn is_mostly_failures(&self) -> bool {
        self.calls >= WINDOW_CALLS && self.failures * 2 >= self.calls
    }
}

fn refused(until: Instant, now: Instant) -> Permit {
    Permit::Refused { retry_in: until.duration_since(now) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const CONFIG: BreakerConfig = BreakerConfig { failures: 5, open: SECOND, max_open: Duration::from_secs(30) };

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(CONFIG);
        for _ in 0..CONFIG.failures {
            assert_eq!(breaker.permit(now), Permit::Call);
            breaker.failure(now);
        }
        assert_eq!(breaker.state(), State::Open);
        breaker
    }

    fn wait_of(breaker: &mut Breaker, now: Instant) -> Duration {
        match breaker.permit(now) {
            Permit::Refused { retry_in } => retry_in,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new(CONFIG);
        for _ in 0..4 {
            breaker.failure(now);
        }
        breaker.success(now);
        for _ in 0..4 {
            breaker.failure(now);
        }
        assert_eq!(breaker.permit(now), Permit::Call);
        breaker.failure(now);
        assert!(matches!(breaker.permit(now), Permit::Refused { .. }));
    }

    #[test]
    fn half_of_twenty_calls_failing_within_ten_seconds_opens_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(CONFIG);
        for _ in 0..10 {
            assert_eq!(breaker.state(), State::Closed);
            breaker.success(now);
            breaker.failure(now);
        }
        assert_eq!(breaker.state(), State::Open);
    }

    #[test]
    fn the_same_failures_spread_over_a_minute_leave_it_closed() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(CONFIG);
        for _ in 0..10 {
            breaker.success(now);
            breaker.failure(now);
            now += 6 * SECOND;
        }
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn after_its_time_one_probe_goes_out_and_three_successes_close_it() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        now += wait_of(&mut breaker, now);
        for _ in 0..3 {
            assert_eq!(breaker.permit(now), Permit::Probe);
            assert!(matches!(breaker.permit(now), Permit::Refused { .. }), "a second probe went out");
            breaker.success(now);
        }
        assert_eq!(breaker.state(), State::Closed);
        assert_eq!(breaker.permit(now), Permit::Call);
    }

    #[test]
    fn each_failed_probe_doubles_the_wait_up_to_the_longest() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for nominal in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            let wait = wait_of(&mut breaker, now);
            let share = wait.as_secs_f64() / nominal;
            assert!((0.8..=1.2).contains(&share), "{wait:?} instead of {nominal} s ± 20 %");
            now += wait;
            assert_eq!(breaker.permit(now), Permit::Probe);
            breaker.failure(now);
        }
    }

    #[test]
    fn a_probe_that_never_reports_is_replaced_after_the_open_time() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        now += wait_of(&mut breaker, now);
        assert_eq!(breaker.permit(now), Permit::Probe);
        assert_eq!(wait_of(&mut breaker, now), SECOND);
        assert_eq!(breaker.permit(now + SECOND), Permit::Probe);
    }

    #[test]
    fn answers_to_calls_from_before_it_opened_change_nothing() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let wait = wait_of(&mut breaker, now);
        breaker.success(now);
        breaker.failure(now);
        assert_eq!(wait_of(&mut breaker, now), wait);
    }

    proptest! {
        #[test]
        fn whatever_happens_it_lets_a_call_through_within_its_longest_wait(
            steps in prop::collection::vec((0_u64..3_000, 0_u8..3), 0..200),
        ) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(CONFIG);
            for (milliseconds, step) in steps {
                now += Duration::from_millis(milliseconds);
                match step {
                    0 => { breaker.permit(now); }
                    1 => breaker.success(now),
                    _ => breaker.failure(now),
                }
            }
            if let Permit::Refused { retry_in } = breaker.permit(now) {
                prop_assert!(retry_in <= CONFIG.max_open.mul_f64(1.2));
                let after = breaker.permit(now + retry_in);
                prop_assert_eq!(after, Permit::Probe);
            }
        }
    }
}
