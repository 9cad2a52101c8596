//! Invalidations that Redis has not taken yet: one per key, the newest last, and never more than a bound.
//!
//! Beyond the bound keys are forgotten and their whole lane is marked, to be emptied when Redis is back: memory stays
//! flat and nothing stale survives.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{keys::KeyHash, l1::EntryKey};

/// Keys that are remembered one by one.
const MOST_KEYS: usize = 10_000;

/// What to deliver next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// These keys, with their tickets.
    Keys(Vec<(u64, EntryKey)>),
    /// A whole lane: ticket, namespace and number.
    Lane(u64, u32, usize),
    /// All is delivered.
    Nothing,
}

#[derive(Debug, Default)]
struct Queue {
    next_ticket: u64,
    in_order: BTreeMap<u64, EntryKey>,
    tickets: HashMap<EntryKey, u64>,
    /// Each with the ticket of the newest key that it stands for.
    whole_lanes: BTreeMap<(u32, usize), u64>,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    queue: Mutex<Queue>,
}

impl Pending {
    /// Puts `key` at the end, once.
    pub(crate) fn push(&self, key: EntryKey, hash: KeyHash) {
        let mut queue = self.queue();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        let lane = (key.namespace, hash.lane());
        if let Some(newest) = queue.whole_lanes.get_mut(&lane) {
            *newest = ticket;
            return;
        }
        if let Some(former) = queue.tickets.remove(&key) {
            queue.in_order.remove(&former);
        }
        if queue.in_order.len() >= MOST_KEYS {
            queue.whole_lanes.insert(lane, ticket);
            return;
        }
        queue.in_order.insert(ticket, key.clone());
        queue.tickets.insert(key, ticket);
    }

    /// Whether what Redis holds for `key` may be older than an invalidation of this worker.
    pub(crate) fn contains(&self, key: &EntryKey, hash: KeyHash) -> bool {
        let queue = self.queue();
        queue.tickets.contains_key(key) || queue.whole_lanes.contains_key(&(key.namespace, hash.lane()))
    }

    /// The oldest `most` keys, then the lanes. They stay queued until they are reported as delivered.
    pub(crate) fn next(&self, most: usize) -> Work {
        let queue = self.queue();
        if !queue.in_order.is_empty() {
            let oldest = queue.in_order.iter().take(most);
            return Work::Keys(oldest.map(|(ticket, key)| (*ticket, key.clone())).collect());
        }
        match queue.whole_lanes.first_key_value() {
            Some((&(namespace, lane), &ticket)) => Work::Lane(ticket, namespace, lane),
            None => Work::Nothing,
        }
    }

    /// Forgets what was delivered, but not a key that was queued again meanwhile.
    pub(crate) fn delivered(&self, work: &Work) {
        let mut queue = self.queue();
        match work {
            Work::Keys(keys) => {
                for (ticket, key) in keys {
                    if queue.in_order.remove(ticket).is_some() {
                        queue.tickets.remove(key);
                    }
                }
            }
            Work::Lane(ticket, namespace, lane) => {
                let lane = (*namespace, *lane);
                if queue.whole_lanes.get(&lane) == Some(ticket) {
                    queue.whole_lanes.remove(&lane);
                }
            }
            Work::Nothing => {}
        }
    }

    /// Keys and lanes that wait.
    pub(crate) fn len(&self) -> usize {
        let queue = self.queue();
        queue.in_order.len() + queue.whole_lanes.len()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(pending: &Pending, key: &str) {
        pending.push(EntryKey::new(0, key), KeyHash::of(key));
    }

    fn keys(work: &Work) -> Vec<&str> {
        match work {
            Work::Keys(keys) => keys.iter().map(|(_, key)| &*key.key).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_key_queued_twice_is_delivered_once_in_its_newest_place() {
        let pending = Pending::default();
        for key in ["a", "b", "a"] {
            push(&pending, key);
        }
        assert_eq!(keys(&pending.next(10)), ["b", "a"]);
    }

    #[test]
    fn a_key_queued_again_during_its_delivery_stays() {
        let pending = Pending::default();
        push(&pending, "a");
        let work = pending.next(10);
        push(&pending, "a");
        pending.delivered(&work);
        assert!(pending.contains(&EntryKey::new(0, "a"), KeyHash::of("a")));
        let work = pending.next(10);
        pending.delivered(&work);
        assert_eq!(pending.next(10), Work::Nothing);
    }

    #[test]
    fn beyond_the_bound_the_lane_is_queued_instead_of_the_key() {
        let pending = Pending::default();
        for number in 0..MOST_KEYS + 500 {
            push(&pending, &number.to_string());
        }
        assert!(pending.len() <= MOST_KEYS + crate::keys::LANES);
        let last = (MOST_KEYS + 499).to_string();
        assert!(pending.contains(&EntryKey::new(0, &last), KeyHash::of(&last)));
        let mut lanes = 0;
        loop {
            let work = pending.next(256);
            match work {
                Work::Nothing => break,
                Work::Lane(..) => lanes += 1,
                Work::Keys(_) => assert_eq!(lanes, 0, "keys come before lanes"),
            }
            pending.delivered(&work);
        }
        assert!(lanes > 0 && pending.len() == 0);
    }
}
