//! Requests that wait for the next call, grouped as the script wants them.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasherDefault,
};

use tokio::sync::oneshot;

use crate::{bounded::Already, decision::Decision, identity::Identity, policies::PolicySet};

/// Counters in one call. It bounds how long a script holds up Redis, and Lua unpacks no more than 8,000 values.
const MAX_COUNTERS: usize = 2048;

/// Waiting requests of one identity under one set of policies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) identity: Identity,
    pub(crate) set: PolicySet,
    pub(crate) waiting: u32,
}

/// A request that waits.
pub(crate) struct Waiter {
    /// Its group's place in the batch.
    pub(crate) group: u32,
    pub(crate) answer: oneshot::Sender<Decision>,
}

/// What goes to Redis in one call.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) groups: Vec<Group>,
    /// In order of arrival.
    pub(crate) waiters: Vec<Waiter>,
    counters: usize,
    places: HashMap<(u64, u64, PolicySet), u32, BuildHasherDefault<Already>>,
}

/// Batches that wait, the oldest first.
#[derive(Default)]
pub(crate) struct Queue(VecDeque<Batch>);

impl Queue {
    /// Adds a request; true when it is the first that waits.
    pub(crate) fn push(&mut self, identity: Identity, set: PolicySet, answer: oneshot::Sender<Decision>) -> bool {
        let first = self.0.is_empty();
        if self.0.back().is_none_or(|batch| batch.counters + set.len() > MAX_COUNTERS) {
            self.0.push_back(Batch::default());
        }
        if let Some(batch) = self.0.back_mut() {
            batch.push(identity, set, answer);
        }
        first
    }

    pub(crate) fn pop(&mut self) -> Option<Batch> {
        self.0.pop_front()
    }
}

impl Batch {
    fn push(&mut self, identity: Identity, set: PolicySet, answer: oneshot::Sender<Decision>) {
        let next = self.groups.len() as u32;
        let group = *self.places.entry((identity.high, identity.low, set)).or_insert(next);
        if group == next {
            self.groups.push(Group { identity, set, waiting: 0 });
            self.counters += set.len();
        }
        self.groups[group as usize].waiting += 1;
        self.waiters.push(Waiter { group, answer });
    }
}
