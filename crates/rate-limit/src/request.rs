//! A request as the limiter sees it: whose it is under each policy, and what it costs.

use smallvec::SmallVec;

use crate::identity::Identity;

/// One policy's view of a request: an identity, and the rule it is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) identity: Identity,
    pub(crate) rule: u16,
}

pub(crate) type Parts = SmallVec<[Part; 2]>;

/// A request, resolved by [`crate::Limiter::request`]. It may be asked about any number of times; each time counts.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) parts: Parts,
    pub(crate) cost: u32,
    /// Whether all its policies may be granted ahead.
    pub(crate) leased: bool,
    /// Tells groups apart: requests that agree in it agree in everything.
    pub(crate) fingerprint: u64,
}

impl Request {
    pub(crate) fn new(parts: Parts, cost: u32, leased: bool) -> Self {
        let fingerprint = fingerprint(&parts, cost);
        Self { parts, cost, leased, fingerprint }
    }

    /// The same request with a cost of so many units, at least 1, that each policy multiplies by its own.
    #[must_use]
    pub fn costing(self, cost: u32) -> Self {
        Self::new(self.parts, cost.max(1), self.leased)
    }

    /// Whether no policy applies.
    pub fn is_unlimited(&self) -> bool {
        self.parts.is_empty()
    }

    /// The lane of all its parts, if it is the same.
    pub(crate) fn lane(&self) -> Option<usize> {
        let first = self.parts.first()?.identity.lane();
        self.parts.iter().all(|part| part.identity.lane() == first).then_some(first)
    }

    /// The parts of each lane as requests of their own.
    pub(crate) fn by_lane(&self) -> SmallVec<[Self; 2]> {
        let mut lanes: SmallVec<[(usize, Parts); 2]> = SmallVec::new();
        for part in &self.parts {
            let lane = part.identity.lane();
            match lanes.iter_mut().find(|(other, _)| *other == lane) {
                Some((_, parts)) => parts.push(*part),
                None => lanes.push((lane, SmallVec::from_slice(&[*part]))),
            }
        }
        lanes.into_iter().map(|(_, parts)| Self::new(parts, self.cost, self.leased)).collect()
    }
}

/// Identities are keyed hashes, so that nobody can aim at two requests with one fingerprint; the finalizer of SplitMix64
/// (Steele, Lea, Flood 2014) keeps the parts apart.
fn fingerprint(parts: &Parts, cost: u32) -> u64 {
    parts.iter().fold(u64::from(cost), |sum, part| {
        let salt = u64::from(part.rule).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut mixed = sum.rotate_left(23) ^ part.identity.high ^ salt;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn requests_that_differ_in_anything_have_different_fingerprints() {
        let mut seen = HashSet::new();
        let part = |high: u64, rule| Part { identity: Identity { high, low: 0 }, rule };
        for cost in [1, 2, 3] {
            for first in 0..20 {
                for rule in 0..20 {
                    let lone = Parts::from_slice(&[part(first, rule)]);
                    assert!(seen.insert(Request::new(lone, cost, false).fingerprint), "{first} {rule} {cost}");
                    for second in 0..5 {
                        let two = Parts::from_slice(&[part(first, rule), part(second, rule + 1)]);
                        assert!(
                            seen.insert(Request::new(two, cost, false).fingerprint),
                            "{first} {second} {rule} {cost}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_parts_of_each_lane_stay_together_and_in_order() {
        let part = |low, rule| Part { identity: Identity { high: 0, low }, rule };
        let request = Request::new(Parts::from_slice(&[part(1, 0), part(2, 1), part(65, 2)]), 3, false);
        assert_eq!(request.lane(), None);
        let lanes = request.by_lane();
        let rules: Vec<Vec<u16>> =
            lanes.iter().map(|request| request.parts.iter().map(|part| part.rule).collect()).collect();
        assert_eq!(rules, [vec![0, 2], vec![1]]);
        assert!(lanes.iter().all(|request| request.lane().is_some() && request.cost == 3));
    }
}
