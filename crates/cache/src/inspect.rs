//! Looking into the cache, and emptying it, by hand.

use std::time::Duration;

use redis_store::Error;

use crate::{
    caches::{CacheKey, Caches},
    envelope,
    keys::{KeyHash, LANES},
    l1::EntryKey,
};

/// An entry as it lies in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Bytes of the whole entry.
    pub bytes: usize,
    /// What the entry says of itself; `None` when this release cannot read it, which is a miss.
    pub readable: Option<Readable>,
}

/// What an entry says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readable {
    /// Whether it says that there is no such row.
    pub absent: bool,
    /// How long it is fresh still; zero: it only stands in.
    pub fresh_for: Duration,
    /// How long it may be answered with at all.
    pub expires_in: Duration,
    /// How long its load took.
    pub load_time: Duration,
    /// What it can be invalidated by. Whether one has been since is known to the workers only.
    pub tags: Vec<String>,
}

impl Caches {
    /// A key of the namespace with this name, if it was opened.
    pub fn key(&self, namespace: &str, key: &str) -> Option<CacheKey> {
        let namespaces = self.shared().namespaces.borrow();
        let namespace = namespaces.iter().find(|known| known.name == namespace)?;
        Some(CacheKey(EntryKey::new(namespace.id, key)))
    }

    /// What Redis holds for a key; `None` for nothing that anybody would take: also what is of a time before the namespace was
    /// cleared.
    pub async fn inspect(&self, key: &CacheKey) -> Result<Option<Inspection>, Error> {
        let shared = self.shared();
        let CacheKey(EntryKey { namespace, key }) = key;
        let namespace = shared.namespace(*namespace);
        let address = namespace.address(KeyHash::of(key).lane());
        // It also tells Redis's time.
        let heads = shared.l2.heads(&[address]).await?;
        let Some(entry) = shared.l2.get(address, key).await? else { return Ok(None) };
        let Ok(envelope) = envelope::open(namespace.schema, &entry) else {
            return Ok(Some(Inspection { bytes: entry.len(), readable: None }));
        };
        if heads.first().is_none_or(|head| head.epoch != envelope.head.epoch) {
            return Ok(None);
        }
        let now_us = shared.clock.redis_now_us().unwrap_or_default();
        let left = |until_us: u64| Duration::from_micros(until_us.saturating_sub(now_us));
        let readable = Readable {
            absent: envelope.payload.is_none(),
            fresh_for: left(envelope.head.fresh_us),
            expires_in: left(envelope.head.expires_us),
            load_time: Duration::from_micros(envelope.head.load_us.into()),
            tags: envelope.tags.iter().map(|tag| tag.name.to_owned()).collect(),
        };
        Ok(Some(Inspection { bytes: entry.len(), readable: Some(readable) }))
    }

    /// Empties the namespace with this name for everybody, at a cost that does not depend on what it holds: its lanes begin a new
    /// epoch, in which no entry of before is believed. False when it was not opened.
    pub async fn clear(&self, namespace: &str) -> Result<bool, Error> {
        let shared = self.shared();
        let found = shared.namespaces.borrow().iter().find(|known| known.name == namespace).cloned();
        let Some(namespace) = found else { return Ok(false) };
        for lane in 0..LANES {
            shared.restart(&namespace, lane).await?;
        }
        Ok(true)
    }
}
