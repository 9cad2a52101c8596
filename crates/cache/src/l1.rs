//! The worker's memory: one store, weighed in bytes, for all namespaces. Expiry and validity are judged by the reader.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use quick_cache::{
    DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

use crate::flight::Landed;

/// What an entry costs beside its key and value: the store's own records, reference counts, the allocator's rounding.
/// Measured with values of 700 bytes.
const OVERHEAD_BYTES: u64 = 232;
/// A guess that sizes the store's ghost list; an order of magnitude is enough.
const TYPICAL_ENTRY_BYTES: u64 = 1024;
/// A worker has one thread; a few shards serve programs with more.
const SHARDS: usize = 4;

/// A key in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryKey {
    pub(crate) namespace: u32,
    pub(crate) key: Arc<str>,
}

impl EntryKey {
    pub(crate) fn new(namespace: u32, key: &str) -> Self {
        Self { namespace, key: key.into() }
    }
}

impl Hash for EntryKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        EntryRef { namespace: self.namespace, key: &self.key }.hash(state);
    }
}

/// A borrowed `EntryKey`, so that a hit allocates nothing.
#[derive(Hash)]
pub(crate) struct EntryRef<'a> {
    pub(crate) namespace: u32,
    pub(crate) key: &'a str,
}

impl Equivalent<EntryKey> for EntryRef<'_> {
    fn equivalent(&self, other: &EntryKey) -> bool {
        self.namespace == other.namespace && self.key == &*other.key
    }
}

/// An entry of the store.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) landed: Landed,
    /// Length of the encoded value.
    pub(crate) value_bytes: u32,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<EntryKey, Entry> for ByBytes {
    fn weight(&self, key: &EntryKey, entry: &Entry) -> u64 {
        let tags = entry.landed.validity.tags.as_deref().map_or(0, size_of_val);
        OVERHEAD_BYTES + key.key.len() as u64 + tags as u64 + u64::from(entry.value_bytes)
    }
}

/// The store. What is known to be absent has a part of its own, so that whoever asks for random keys drives out nothing but what
/// others like him asked for (trap T9).
#[derive(Debug)]
pub(crate) struct L1 {
    values: Store,
    absent: Store,
}

type Store = Cache<EntryKey, Entry, ByBytes>;

impl L1 {
    pub(crate) fn new(budget_bytes: u64) -> Self {
        let (values, absent) = divided(budget_bytes);
        Self { values: store(values), absent: store(absent) }
    }

    /// Makes do with another budget from now on; what is too much goes at once.
    pub(crate) fn set_budget(&self, budget_bytes: u64) {
        let (values, absent) = divided(budget_bytes);
        self.values.set_capacity(values);
        self.absent.set_capacity(absent);
    }

    pub(crate) fn get(&self, key: &EntryRef<'_>) -> Option<Entry> {
        self.values.get(key).or_else(|| self.absent.get(key))
    }

    pub(crate) fn insert(&self, key: EntryKey, entry: Entry) {
        let (part, other) = match entry.landed.value {
            Some(_) => (&self.values, &self.absent),
            None => (&self.absent, &self.values),
        };
        other.remove(&EntryRef { namespace: key.namespace, key: &key.key });
        part.insert(key, entry);
    }

    pub(crate) fn remove(&self, key: &EntryKey) {
        let key = EntryRef { namespace: key.namespace, key: &key.key };
        self.values.remove(&key);
        self.absent.remove(&key);
    }

    /// Removes an entry that does not reflect the invalidation with this number.
    pub(crate) fn remove_older(&self, key: &EntryKey, sequence: u64) {
        let key = EntryRef { namespace: key.namespace, key: &key.key };
        self.values.remove_if(&key, |entry| entry.landed.validity.stamp.sequence < sequence);
        self.absent.remove_if(&key, |entry| entry.landed.validity.stamp.sequence < sequence);
    }

    /// Bytes in use, as they are counted against the budget.
    pub(crate) fn weight(&self) -> u64 {
        self.values.weight() + self.absent.weight()
    }
}

/// A twentieth is for what is absent.
fn divided(budget_bytes: u64) -> (u64, u64) {
    let absent = (budget_bytes / 20).max(OVERHEAD_BYTES);
    (budget_bytes.saturating_sub(absent).max(OVERHEAD_BYTES), absent)
}

fn store(budget_bytes: u64) -> Store {
    let options = OptionsBuilder::new()
        .shards(SHARDS)
        .estimated_items_capacity((budget_bytes / TYPICAL_ENTRY_BYTES).max(16) as usize)
        .weight_capacity(budget_bytes)
        .build()
        .expect("all required options are given");
    Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        coherence::{
            lane::Stamp,
            validity::{Trust, Validity},
        },
        freshness::Times,
        hit::Source,
    };

    fn entry(sequence: u64, value_bytes: u32) -> Entry {
        let stamp = Stamp { sequence, generation: 0 };
        let landed = Landed {
            value: Some(Arc::new(7_u32)),
            source: Source::Loader,
            times: Times::alone(0, std::time::Duration::ZERO),
            version: 0,
            validity: Validity { stamp, tags: None, trust: Trust::Coordinated },
        };
        Entry { landed, value_bytes }
    }

    fn absent(sequence: u64) -> Entry {
        let entry = entry(sequence, 0);
        Entry { landed: Landed { value: None, ..entry.landed }, ..entry }
    }

    #[test]
    fn one_key_in_two_namespaces_is_two_entries() {
        let store = L1::new(1 << 20);
        store.insert(EntryKey::new(1, "a"), entry(1, 10));
        store.insert(EntryKey::new(2, "a"), entry(2, 10));
        let stamp =
            |namespace| store.get(&EntryRef { namespace, key: "a" }).map(|entry| entry.landed.validity.stamp.sequence);
        assert_eq!((stamp(1), stamp(2), stamp(3)), (Some(1), Some(2), None));
    }

    #[test]
    fn an_entry_that_reflects_the_invalidation_survives_its_echo() {
        let store = L1::new(1 << 20);
        let key = EntryKey::new(1, "a");
        store.insert(key.clone(), entry(11, 10));
        store.remove_older(&key, 10);
        assert_eq!(store.weight(), OVERHEAD_BYTES + 1 + 10);
        store.remove_older(&key, 12);
        assert_eq!(store.weight(), 0);
    }

    #[test]
    fn whoever_asks_for_random_keys_drives_out_nothing_but_what_is_absent() {
        let store = L1::new(1 << 20);
        let hot = |number: u32| EntryKey::new(1, &format!("hot-{number}"));
        let is_there = |key: &EntryKey| store.get(&EntryRef { namespace: 1, key: &key.key }).is_some();
        for number in 0..500 {
            store.insert(hot(number), entry(1, 600));
        }
        for number in 0..100_000 {
            store.insert(EntryKey::new(1, &format!("nobody-{number}")), absent(1));
        }
        let kept = (0..500).filter(|number| is_there(&hot(*number))).count();
        assert!(kept >= 490, "{kept} of 500");
        assert!(store.weight() <= 1 << 20);
        // A row that is created, or deleted, is in one part only.
        let key = hot(1);
        store.insert(key.clone(), absent(2));
        store.remove(&key);
        assert!(!is_there(&key));
    }

    #[test]
    fn the_weight_never_exceeds_the_budget() {
        let budget = 256 * 1024;
        let store = L1::new(budget);
        for number in 0..5_000 {
            store.insert(EntryKey::new(1, &number.to_string()), entry(1, 100 + number % 3_000));
            assert!(store.weight() <= budget, "{} bytes after {number}", store.weight());
        }
        assert!(store.weight() > budget / 2);
        store.set_budget(budget / 4);
        assert!(store.weight() <= budget / 4, "{} bytes", store.weight());
        store.set_budget(budget);
        for number in 0..5_000 {
            store.insert(EntryKey::new(1, &number.to_string()), entry(1, 100 + number % 3_000));
        }
        assert!((budget / 2..=budget).contains(&store.weight()), "{} bytes", store.weight());
    }
}
