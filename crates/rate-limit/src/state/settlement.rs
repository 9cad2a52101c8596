//! What is told to Redis afterwards: refunds, later charges, and units at the same time that are over.

use crate::{policies::Policies, request::Part, state::held::Sequence, state::leases::Unspent};

/// More than this waits only while Redis is away; what is lost then was counted too often, never too seldom.
const MAX_WAITING: usize = 65_536;

/// A change of one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settlement {
    pub(crate) part: Part,
    /// Units; negative ones are given back.
    pub(crate) units: i64,
    /// Redis's clock when they were counted.
    pub(crate) counted_us: u64,
}

/// What waits to be told.
#[derive(Default)]
pub(crate) struct Settlements {
    changes: Vec<Settlement>,
    releases: Vec<(Part, Vec<Sequence>)>,
}

impl Settlements {
    /// Adds a change; false when too much waits already.
    pub(crate) fn push(&mut self, settlement: Settlement) -> bool {
        if let Some(last) = self.changes.last_mut()
            && (last.part, last.counted_us) == (settlement.part, settlement.counted_us)
        {
            last.units += settlement.units;
            return true;
        }
        let fits = self.changes.len() < MAX_WAITING;
        if fits {
            self.changes.push(settlement);
        }
        fits
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.releases.is_empty()
    }

    /// Adds what was granted ahead and not spent.
    pub(crate) fn give_back(&mut self, policies: &Policies, unspent: impl IntoIterator<Item = Unspent>) {
        for Unspent { parts, cost, requests, counted_us } in unspent {
            for part in parts {
                let units = policies.rule(part.rule).units(cost) * u64::from(requests);
                self.push(Settlement { part, units: -(units as i64), counted_us });
            }
        }
    }

    /// Adds units at the same time that are over. What is not told for want of room ends by itself.
    pub(crate) fn release(&mut self, part: Part, sequences: Vec<Sequence>) {
        if self.releases.len() < MAX_WAITING {
            self.releases.push((part, sequences));
        }
    }

    pub(crate) fn take(&mut self) -> (Vec<Settlement>, Vec<(Part, Vec<Sequence>)>) {
        (std::mem::take(&mut self.changes), std::mem::take(&mut self.releases))
    }
}
