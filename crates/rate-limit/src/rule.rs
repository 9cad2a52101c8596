//! Rules: what the scripts need to know of a policy with one tier's limit.

use std::time::Duration;

use crate::{
    config::{Algorithm, Policy},
    window::Grid,
};

/// What a counter of a fixed window holds together with its window's index and a batch of waiting requests.
const MAX_LIMIT: u64 = 1_000_000_000_000;
/// What the scripts compute with stays below 2^53, where numbers are exact.
const MAX_SLIDING_LIMIT: u64 = u32::MAX as u64;
const MAX_BUCKET: u64 = 50_000_000;
/// Each unit is an entry of its own.
const MAX_LOGGED: u64 = 1_000;
/// Each unit is a name of its own.
const MAX_CONCURRENT: u64 = 100_000;
const MAX_UNITS: u32 = 1_000_000;
const MIN_WINDOW: Duration = Duration::from_millis(1);
const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 3600);

/// A strict sliding window is counted in so many parts.
const PARTS: u64 = 10;
/// A sliding counter tells so many parts of its window apart.
const STEPS: u64 = 1 << 20;

/// A grant from a bucket may be kept so long at most, in microseconds, and for a tenth of what its burst lasts.
const MAX_HOLD_US: u64 = crate::state::leases::HOLD.as_micros() as u64;

/// How a rule counts, by the number that the scripts know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RuleAlgorithm {
    FixedWindow = 0,
    Gcra = 1,
    SlidingCounter = 2,
    SlidingWindow = 3,
    SlidingLog = 4,
    Pacing = 5,
    Concurrency = 6,
}

/// A policy with the limit of one tier.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) policy: u8,
    pub(crate) algorithm: RuleAlgorithm,
    pub(crate) shadow: bool,
    /// Units per window.
    pub(crate) limit: u64,
    pub(crate) window_us: u64,
    cost: u32,
    burst: u64,
    max_delay_us: u64,
}

impl Rule {
    /// Checks what the scripts can compute exactly.
    pub(crate) fn compile(policy: u8, config: &Policy, limit: u64) -> Result<Self, &'static str> {
        if !(MIN_WINDOW..=MAX_WINDOW).contains(&config.window) {
            return Err("the window is not between 1 ms and 366 days");
        }
        if config.cost == 0 || config.cost > MAX_UNITS {
            return Err("the cost is not between 1 and 1,000,000");
        }
        let (algorithm, burst, max_delay) = match config.algorithm {
            Algorithm::FixedWindow => (RuleAlgorithm::FixedWindow, 0, Duration::ZERO),
            Algorithm::Gcra { burst } => (RuleAlgorithm::Gcra, burst.unwrap_or(limit), Duration::ZERO),
            Algorithm::SlidingCounter => (RuleAlgorithm::SlidingCounter, 0, Duration::ZERO),
            Algorithm::SlidingWindow => (RuleAlgorithm::SlidingWindow, 0, Duration::ZERO),
            Algorithm::SlidingLog => (RuleAlgorithm::SlidingLog, 0, Duration::ZERO),
            Algorithm::Pacing { burst, max_delay } => (RuleAlgorithm::Pacing, burst, max_delay),
            Algorithm::Concurrency => (RuleAlgorithm::Concurrency, 0, Duration::ZERO),
        };
        let rule = Self {
            policy,
            algorithm,
            shadow: config.shadow,
            limit,
            window_us: config.window.as_micros() as u64,
            cost: config.cost,
            // A rate of nothing fills no bucket.
            burst: if limit == 0 { 0 } else { burst },
            max_delay_us: max_delay.as_micros() as u64,
        };
        rule.check_limit(max_delay)?;
        Ok(rule)
    }

    /// The units that a request of so many takes.
    pub(crate) fn units(&self, cost: u32) -> u64 {
        u64::from(self.cost) * u64::from(cost)
    }

    /// Whether so many units are more than there ever are at once.
    pub(crate) fn never_has(&self, units: u64) -> bool {
        match self.algorithm {
            RuleAlgorithm::Gcra => units > self.burst,
            // What fits also depends on the delay, which the script knows.
            RuleAlgorithm::Pacing => false,
            _ => units > self.limit,
        }
    }

    /// Whether units are counted at the same time, not per window.
    pub(crate) fn is_concurrency(&self) -> bool {
        self.algorithm == RuleAlgorithm::Concurrency
    }

    /// Whether units are counted in windows.
    pub(crate) fn counts_windows(&self) -> bool {
        !matches!(self.algorithm, RuleAlgorithm::Gcra | RuleAlgorithm::Pacing | RuleAlgorithm::Concurrency)
    }

    /// Units at once.
    pub(crate) fn burst(&self) -> u64 {
        self.burst
    }

    /// How long a request is held up at most.
    pub(crate) fn max_delay_us(&self) -> u64 {
        self.max_delay_us
    }

    /// The time of so many units, rounded up.
    pub(crate) fn spacing_us(&self, units: u64) -> u64 {
        let us = (u128::from(units) * u128::from(self.window_us)).div_ceil(self.limit.max(1).into());
        u64::try_from(us).unwrap_or(u64::MAX)
    }

    /// How long from `now_us` on a grant for the identity with this seed may be spent: until the counter that it is counted
    /// in is over.
    pub(crate) fn spendable_us(&self, seed: u32, now_us: u64) -> u64 {
        let grid = match self.algorithm {
            RuleAlgorithm::Gcra => return self.hold_us(),
            RuleAlgorithm::SlidingWindow => Grid::within(seed, self.window_us, self.part_us()),
            _ => Grid::new(seed, self.window_us),
        };
        grid.until_end(grid.index_at(now_us), now_us)
    }

    /// What the keys of its algorithm end with, so that none reads what another has counted.
    pub(crate) fn mark(&self) -> &'static str {
        match self.algorithm {
            RuleAlgorithm::FixedWindow => "",
            RuleAlgorithm::Gcra => "~g",
            RuleAlgorithm::SlidingCounter => "~c",
            RuleAlgorithm::SlidingWindow => "~w",
            RuleAlgorithm::SlidingLog => "~l",
            RuleAlgorithm::Pacing => "~p",
            RuleAlgorithm::Concurrency => "~n",
        }
    }

    fn check_limit(&self, max_delay: Duration) -> Result<(), &'static str> {
        match self.algorithm {
            RuleAlgorithm::FixedWindow if self.limit > MAX_LIMIT => Err("the limit is above 1,000,000,000,000"),
            RuleAlgorithm::SlidingCounter | RuleAlgorithm::SlidingWindow if self.limit > MAX_SLIDING_LIMIT => {
                Err("the limit is above 4,294,967,295")
            }
            RuleAlgorithm::SlidingLog if self.limit > MAX_LOGGED => {
                Err("the limit is above 1,000, more than a sliding log holds; a sliding window takes more")
            }
            RuleAlgorithm::Concurrency if self.limit > MAX_CONCURRENT => Err("the limit is above 100,000"),
            RuleAlgorithm::Gcra | RuleAlgorithm::Pacing => self.check_bucket(max_delay),
            _ => Ok(()),
        }
    }

    fn check_bucket(&self, max_delay: Duration) -> Result<(), &'static str> {
        if self.burst == 0 && self.limit > 0 {
            return Err("a burst is at least 1");
        }
        if self.limit > MAX_BUCKET || self.burst > MAX_BUCKET {
            return Err("the limit or the burst is above 50,000,000");
        }
        if self.spacing_us(self.burst) > 2 * MAX_WINDOW.as_micros() as u64 {
            return Err("the burst is more than the limit gives in two years");
        }
        if max_delay > MAX_WINDOW {
            return Err("the delay is above 366 days");
        }
        Ok(())
    }

    fn hold_us(&self) -> u64 {
        MAX_HOLD_US.min(self.spacing_us(self.burst) / 10)
    }

    fn part_us(&self) -> u64 {
        self.window_us.div_ceil(PARTS)
    }

    /// Limit, window and four numbers more, as the scripts read them.
    fn numbers(&self) -> [u64; 6] {
        let (limit, window) = (self.limit, self.window_us);
        match self.algorithm {
            RuleAlgorithm::Gcra | RuleAlgorithm::Pacing => {
                // The time of one unit in lowest terms: whole microseconds and a fraction.
                let divisor = greatest_common_divisor(window, limit.max(1));
                let (window, denominator) = (window / divisor, limit.max(1) / divisor);
                let (whole, rest) = (window / denominator, window % denominator);
                [self.burst, whole, rest, denominator, self.max_delay_us, self.hold_us()]
            }
            RuleAlgorithm::SlidingCounter => {
                let step = window.div_ceil(STEPS);
                [limit, window, step, window.div_ceil(step), 0, 0]
            }
            RuleAlgorithm::SlidingWindow => [limit, window, self.part_us(), 0, 0, 0],
            _ => [limit, window, 0, 0, 0, 0],
        }
    }
}

/// All rules as the scripts read them: `<I1I1I4` algorithm, shadow and cost, then six numbers `I8`.
pub(crate) fn encode(rules: &[Rule]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(rules.len() * 54);
    for rule in rules {
        encoded.push(rule.algorithm as u8);
        encoded.push(u8::from(rule.shadow));
        encoded.extend_from_slice(&rule.cost.to_le_bytes());
        encoded.extend(rule.numbers().into_iter().flat_map(u64::to_le_bytes));
    }
    encoded
}

fn greatest_common_divisor(mut one: u64, mut other: u64) -> u64 {
    while other > 0 {
        (one, other) = (other, one % other);
    }
    one
}
