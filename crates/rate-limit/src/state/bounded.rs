//! A map that forgets its older half instead of growing.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
};

use crate::identity::Identity;

/// A counter's place: one identity under one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) identity: Identity,
    pub(crate) policy: u8,
}

/// A map with at most `capacity` entries. When its younger half is full, the older half is dropped.
pub(crate) struct Bounded<K, V> {
    young: Map<K, V>,
    old: Map<K, V>,
    half: usize,
}

pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Already>>;

impl<K: Copy + Eq + Hash, V> Bounded<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { young: Map::default(), old: Map::default(), half: (capacity / 2).max(1) }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        // Asked twice, because the borrow checker does not see that a miss gives the borrow back.
        if self.young.contains_key(key) { self.young.get_mut(key) } else { self.old.get_mut(key) }
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    /// Takes every value, each once.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = V> {
        let (young, mut old) = (std::mem::take(&mut self.young), std::mem::take(&mut self.old));
        young.keys().for_each(|key| drop(old.remove(key)));
        young.into_values().chain(old.into_values())
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.young.values_mut().chain(self.old.values_mut())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // An odd factor, so that the policies of one identity do not fall into one another's places.
        state.write_u64(self.identity.high ^ u64::from(self.policy).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
}

/// Identities are keyed hashes already; hashing them again would only cost time.
#[derive(Default)]
pub(crate) struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = self.0.rotate_left(32) ^ value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u64) -> Slot {
        Slot { identity: Identity { high: number, low: !number }, policy: 0 }
    }

    #[test]
    fn it_never_holds_more_than_its_capacity_and_keeps_the_newest_half() {
        let mut map = Bounded::new(100);
        for number in 0..10_000 {
            map.insert(slot(number), number);
            assert!(map.len() <= 100);
            for recent in number.saturating_sub(49)..=number {
                assert_eq!(map.get(&slot(recent)), Some(&recent));
            }
        }
        assert_eq!(map.get(&slot(0)), None);
    }

    #[test]
    fn a_value_written_again_hides_the_older_one() {
        let mut map = Bounded::new(4);
        map.insert(slot(1), 'a');
        map.insert(slot(2), 'b');
        map.insert(slot(3), 'c');
        map.insert(slot(1), 'd');
        assert_eq!(map.get(&slot(1)), Some(&'d'));
        assert_eq!(map.get_mut(&slot(1)), Some(&mut 'd'));
        map.remove(&slot(1));
        assert_eq!(map.get(&slot(1)), None);
    }

    #[test]
    fn policies_of_one_identity_are_kept_apart() {
        let mut map = Bounded::new(100);
        for policy in 0..64 {
            map.insert(Slot { policy, ..slot(9) }, policy);
        }
        assert!((0..64).all(|policy| map.get(&Slot { policy, ..slot(9) }) == Some(&policy)));
    }
}
