//! A worker's own part of each limit, for when Redis is away.

use std::time::Duration;

use crate::{
    config::{OnOutage, Share},
    decision::{Decision, PolicyState, Source, States, Verdict},
    policies::Policies,
    request::Request,
    rule::{Rule, RuleAlgorithm},
    state::bounded::{Bounded, Slot},
    state::held::{Holdings, Units},
    window::{Grid, Window},
};

/// Counters of this worker's own admissions: as many as fit the places of two tables, 4 MB when full.
const REMEMBERED: usize = 57_344;

/// What this worker has admitted under one policy, whoever decided it.
#[derive(Debug, Clone, Copy)]
enum Counter {
    /// In this window and in the one before it.
    Windows { current: Window, previous: u64 },
    /// When the bucket is empty again, in nanoseconds of Redis's clock.
    Bucket { empty_at_ns: u64 },
}

/// What one policy has left for a request.
struct Room {
    units: u64,
    /// Until more is to be had.
    wait: Duration,
    delay: Duration,
}

/// What this worker has admitted, and the decisions that rest on it.
pub(crate) struct Counters(Bounded<Slot, Counter>);

impl Counters {
    pub(crate) fn new() -> Self {
        Self(Bounded::new(REMEMBERED))
    }

    /// Decides as the policies say for when Redis is away, and counts what is let through.
    pub(crate) fn decide(
        &mut self,
        policies: &Policies,
        request: &Request,
        share: Share,
        holdings: &mut Holdings,
        now_us: u64,
    ) -> (Decision, Units) {
        let (mut denied, mut closed, mut delay) = (false, false, Duration::ZERO);
        let mut states = States::new();
        for part in &request.parts {
            let rule = policies.rule(part.rule);
            let on_outage = policies.get(rule.policy).on_outage;
            if rule.shadow || on_outage == OnOutage::Open {
                continue;
            }
            let state = PolicyState::new(rule, *part, 0);
            if on_outage == OnOutage::Closed {
                closed = true;
                states.push(PolicyState { violated: true, reset: None, ..state });
                continue;
            }
            let slot = Slot { identity: part.identity, policy: rule.policy };
            let units = rule.units(request.cost);
            let room = self.room(rule, &slot, share, holdings, now_us);
            let violated = room.units < units;
            denied |= violated;
            delay = delay.max(room.delay);
            let (remaining, reset) = (room.units, Some(room.wait));
            states.push(PolicyState { remaining, reset, violated, units, counted_us: now_us, ..state });
        }
        let verdict = match (denied, closed) {
            (true, _) => Verdict::Denied,
            (false, true) => Verdict::Unavailable,
            (false, false) => Verdict::Allowed,
        };
        let units = if verdict == Verdict::Allowed {
            self.admit(policies, &mut states, share, holdings)
        } else {
            states.iter_mut().for_each(|state| state.units = 0);
            Units::new()
        };
        (Decision { delay, ..Decision::new(verdict, Source::Local, states) }, units)
    }

    /// Counts units that were admitted, by whatever rule.
    pub(crate) fn count(&mut self, rule: &Rule, slot: Slot, units: u64, now_us: u64) {
        if rule.counts_windows() {
            let (mut current, previous) = self.windows(rule, &slot, now_us);
            current.used += units;
            self.0.insert(slot, Counter::Windows { current, previous });
        }
    }

    /// Takes units back, if the window that they were counted in at `counted_us` is still known.
    pub(crate) fn uncount(&mut self, rule: &Rule, slot: Slot, units: u64, counted_us: u64) {
        let index = Grid::new(slot.identity.seed(), rule.window_us).index_at(counted_us);
        match self.0.get_mut(&slot) {
            Some(Counter::Windows { current, .. }) if current.index == index => {
                current.used = current.used.saturating_sub(units);
            }
            Some(Counter::Windows { current, previous }) if current.index == index + 1 => {
                *previous = previous.saturating_sub(units);
            }
            Some(Counter::Bucket { empty_at_ns }) => {
                *empty_at_ns = empty_at_ns.saturating_sub(units * spacing_ns(rule, 1));
            }
            _ => {}
        }
    }

    pub(crate) fn forget(&mut self, slot: &Slot) {
        self.0.remove(slot);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn admit(&mut self, policies: &Policies, states: &mut States, share: Share, holdings: &mut Holdings) -> Units {
        let mut held = Units::new();
        for state in states.iter_mut() {
            let rule = policies.rule(state.part.rule);
            let slot = Slot { identity: state.part.identity, policy: rule.policy };
            state.remaining -= state.units;
            if rule.is_concurrency() {
                let (first, units) = (holdings.number(state.units), state.units as u32);
                holdings.add(slot, state.part, first, units);
                held.push((state.part, first, units));
            } else if rule.counts_windows() {
                self.count(rule, slot, state.units, state.counted_us);
            } else {
                let empty_at_ns = self.empty_at_ns(&slot, state.counted_us);
                let empty_at_ns = empty_at_ns + state.units * spacing_ns(rule, share.workers);
                self.0.insert(slot, Counter::Bucket { empty_at_ns });
            }
        }
        held
    }

    fn room(&self, rule: &Rule, slot: &Slot, share: Share, holdings: &Holdings, now_us: u64) -> Room {
        match rule.algorithm {
            RuleAlgorithm::Concurrency => {
                let units = quota(rule.limit, slot, share).saturating_sub(holdings.count(slot));
                Room { units, wait: Duration::from_secs(1), delay: Duration::ZERO }
            }
            RuleAlgorithm::Gcra | RuleAlgorithm::Pacing => self.room_in_bucket(rule, slot, share, now_us),
            _ => {
                let (current, previous) = self.windows(rule, slot, now_us);
                let grid = Grid::new(slot.identity.seed(), rule.window_us);
                let until_end = grid.until_end(current.index, now_us);
                let before = match rule.algorithm {
                    RuleAlgorithm::FixedWindow => 0,
                    RuleAlgorithm::SlidingCounter => {
                        (u128::from(previous) * u128::from(until_end)).div_ceil(rule.window_us.into()) as u64
                    }
                    // All of the last window, so that no window at all is above the limit.
                    _ => previous,
                };
                let units = quota(rule.limit, slot, share).saturating_sub(current.used + before);
                Room { units, wait: Duration::from_micros(until_end), delay: Duration::ZERO }
            }
        }
    }

    /// The same bucket as in Redis, with this worker's part of the burst and of the rate.
    fn room_in_bucket(&self, rule: &Rule, slot: &Slot, share: Share, now_us: u64) -> Room {
        let spacing_ns = spacing_ns(rule, share.workers);
        let burst_ns = quota(rule.burst(), slot, share).saturating_mul(spacing_ns);
        let backlog_ns = self.empty_at_ns(slot, now_us) - now_us * 1000;
        let room_ns = (burst_ns + rule.max_delay_us() * 1000).saturating_sub(backlog_ns);
        let missing_ns = spacing_ns - room_ns % spacing_ns;
        Room {
            units: room_ns / spacing_ns,
            wait: Duration::from_nanos(missing_ns),
            delay: Duration::from_nanos((backlog_ns + spacing_ns).saturating_sub(burst_ns)),
        }
    }

    fn empty_at_ns(&self, slot: &Slot, now_us: u64) -> u64 {
        let now_ns = now_us * 1000;
        match self.0.get(slot) {
            Some(Counter::Bucket { empty_at_ns }) => now_ns.max(*empty_at_ns),
            _ => now_ns,
        }
    }

    fn windows(&self, rule: &Rule, slot: &Slot, now_us: u64) -> (Window, u64) {
        let grid = Grid::new(slot.identity.seed(), rule.window_us);
        let Some(Counter::Windows { current: known, previous }) = self.0.get(slot) else {
            return (grid.current(None, now_us), 0);
        };
        let current = grid.current(Some(*known), now_us);
        match current.index.checked_sub(known.index) {
            Some(0) => (current, *previous),
            Some(1) => (current, known.used),
            _ => (current, 0),
        }
    }
}

/// The time of one unit when so many workers share the rate.
pub(crate) fn spacing_ns(rule: &Rule, workers: u32) -> u64 {
    let nanoseconds = u128::from(rule.window_us) * 1000 * u128::from(workers);
    u64::try_from(nanoseconds.div_ceil(rule.limit.max(1).into())).unwrap_or(u64::MAX)
}

/// How much of `limit` this worker may admit to `slot`: an equal part, and one more for as many workers as there is a
/// remainder. Which ones is drawn for each identity (rendezvous hashing), so that the parts of all workers add up to
/// the limit exactly and a limit smaller than the number of workers does not always favour the same ones.
pub(crate) fn quota(limit: u64, slot: &Slot, share: Share) -> u64 {
    let workers = u64::from(share.workers);
    let remainder = limit % workers;
    let has_one_more = remainder > 0 && rank(slot, share) < remainder;
    limit / workers + u64::from(has_one_more)
}

/// How many workers stand before this one in the order drawn for `slot`.
fn rank(slot: &Slot, share: Share) -> u64 {
    let mine = (score(slot, share.index), share.index);
    (0..share.workers).filter(|&worker| (score(slot, worker), worker) > mine).count() as u64
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014) over the worker and the slot.
fn score(slot: &Slot, worker: u32) -> u64 {
    let salt = u64::from(worker) << 8 | u64::from(slot.policy);
    let mut mixed = slot.identity.low ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Identity;

    proptest! {
        #[test]
        fn the_parts_of_all_workers_add_up_to_the_limit(
            limit in 0_u64..1_000_000,
            workers in 1_u32..130,
            high in any::<u64>(),
            low in any::<u64>(),
            policy in 0_u8..64,
        ) {
            let slot = Slot { identity: Identity { high, low }, policy };
            let parts: Vec<u64> = (0..workers).map(|index| quota(limit, &slot, Share { index, workers })).collect();
            prop_assert_eq!(parts.iter().sum::<u64>(), limit);
            prop_assert!(parts.iter().all(|part| part.abs_diff(limit / u64::from(workers)) <= 1));
        }
    }

    #[test]
    fn a_limit_of_one_falls_to_each_worker_about_equally_often() {
        let mut wins = [0; 8];
        for number in 0..8000_u64 {
            let slot =
                Slot { identity: Identity { high: 0, low: number.wrapping_mul(0x5851_f42d_4c95_7f2d) }, policy: 0 };
            for (index, wins) in (0..).zip(&mut wins) {
                *wins += quota(1, &slot, Share { index, workers: 8 });
            }
        }
        assert!(wins.iter().all(|wins| (850..1150).contains(wins)), "{wins:?}");
    }
}
