//! What was admitted without asking Redis, for Redis to count when it is back.

use crate::{
    policies::Policies,
    request::Part,
    rule::Rule,
    state::bounded::{Bounded, Slot},
    state::local::spacing_ns,
    state::settlement::Settlement,
    window::Grid,
};

/// Identities that are remembered: 3 MB when full. What is forgotten is not counted.
const REMEMBERED: usize = 32_768;

/// What Redis does not know of one counter.
#[derive(Debug, Clone, Copy)]
enum Debt {
    /// Units admitted in the window of this index.
    Window { index: u64, units: u64 },
    /// When a bucket that only these units went into is empty again, in nanoseconds of Redis's clock.
    Bucket { empty_at_ns: u64 },
}

/// All that Redis does not know.
pub(crate) struct Owed(Bounded<Slot, (Part, Debt)>);

impl Owed {
    pub(crate) fn new() -> Self {
        Self(Bounded::new(REMEMBERED))
    }

    pub(crate) fn add(&mut self, rule: &Rule, part: Part, units: u64, now_us: u64) {
        if rule.is_concurrency() {
            return;
        }
        let slot = Slot { identity: part.identity, policy: rule.policy };
        let known = self.0.get(&slot).map(|(_, debt)| *debt);
        let debt = if rule.counts_windows() {
            let index = grid(rule, part).index_at(now_us);
            match known {
                Some(Debt::Window { index: known, units: more }) if known == index => {
                    Debt::Window { index, units: units + more }
                }
                _ => Debt::Window { index, units },
            }
        } else {
            let empty_at_ns = match known {
                Some(Debt::Bucket { empty_at_ns }) => empty_at_ns.max(now_us * 1000),
                _ => now_us * 1000,
            };
            Debt::Bucket { empty_at_ns: empty_at_ns + units * spacing_ns(rule, 1) }
        };
        self.0.insert(slot, (part, debt));
    }

    /// Takes back what needs not be counted after all.
    pub(crate) fn take_back(&mut self, rule: &Rule, part: Part, units: u64) {
        match self.0.get_mut(&Slot { identity: part.identity, policy: rule.policy }) {
            Some((_, Debt::Window { units: owed, .. })) => *owed = owed.saturating_sub(units),
            Some((_, Debt::Bucket { empty_at_ns })) => {
                *empty_at_ns = empty_at_ns.saturating_sub(units * spacing_ns(rule, 1));
            }
            None => {}
        }
    }

    pub(crate) fn forget(&mut self, slot: &Slot) {
        self.0.remove(slot);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What still matters: of windows that last, and of buckets that are not empty again.
    pub(crate) fn settle(&mut self, policies: &Policies, now_us: u64) -> Vec<Settlement> {
        let owed = self.0.drain().filter_map(|(part, debt)| {
            let rule = policies.rule(part.rule);
            let units = match debt {
                Debt::Window { index, units } if index == grid(rule, part).index_at(now_us) => units,
                Debt::Window { .. } => 0,
                Debt::Bucket { empty_at_ns } => empty_at_ns.saturating_sub(now_us * 1000).div_ceil(spacing_ns(rule, 1)),
            };
            (units > 0).then_some(Settlement { part, units: units as i64, counted_us: now_us })
        });
        owed.collect()
    }
}

fn grid(rule: &Rule, part: Part) -> Grid {
    Grid::new(part.identity.seed(), rule.window_us)
}
