//! Requests that wait for the next call, grouped as the script wants them.

use std::collections::VecDeque;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::{decision::Decision, request::Request, state::bounded::Map, state::held::Sequence};

/// Counters in one call. It bounds how long a script holds up Redis, and Lua unpacks no more than 8,000 values.
const MAX_COUNTERS: usize = 2048;

/// Waiting requests that agree in everything.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) request: Request,
    pub(crate) waiting: u32,
    /// How many more are to be granted ahead.
    pub(crate) wanted: u32,
    /// The first number of the units of each part that counts units at the same time.
    pub(crate) sequences: SmallVec<[Sequence; 1]>,
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
    /// Of what is left, each worker is granted at most this fraction ahead.
    pub(crate) spread: u32,
    counters: usize,
    /// Groups by the fingerprint of their requests.
    places: Map<u64, u32>,
}

/// Batches that wait, the oldest first.
#[derive(Default)]
pub(crate) struct Queue(VecDeque<Batch>);

impl Group {
    pub(crate) fn new(request: Request, waiting: u32) -> Self {
        Self { request, waiting, wanted: 0, sequences: SmallVec::new() }
    }
}

impl Queue {
    /// Adds a request; true when it is the first that waits.
    pub(crate) fn push(&mut self, request: &Request, answer: oneshot::Sender<Decision>) -> bool {
        let first = self.0.is_empty();
        if self.0.back().is_none_or(|batch| batch.counters + request.parts.len() > MAX_COUNTERS) {
            self.0.push_back(Batch::default());
        }
        if let Some(batch) = self.0.back_mut() {
            batch.push(request, answer);
        }
        first
    }

    pub(crate) fn pop(&mut self) -> Option<Batch> {
        self.0.pop_front()
    }
}

impl Batch {
    /// One group for which nobody waits.
    pub(crate) fn of(group: Group) -> Self {
        Self { groups: vec![group], ..Self::default() }
    }

    fn push(&mut self, request: &Request, answer: oneshot::Sender<Decision>) {
        let next = self.groups.len() as u32;
        let group = *self.places.entry(request.fingerprint).or_insert(next);
        if group == next {
            self.groups.push(Group::new(request.clone(), 0));
            self.counters += request.parts.len();
        }
        self.groups[group as usize].waiting += 1;
        self.waiters.push(Waiter { group, answer });
    }
}
