//! Changes announced before they are made: should their writer die between the commit and the invalidation, another worker
//! makes the invalidation (trap T13).
//!
//! An announcement is a member of a sorted set in Redis, by the time at which somebody else is to act: random bytes, and what
//! is to be invalidated. The watchdogs look every second for what is overdue.

use std::{mem, time::Duration};

use redis_store::{Bytes, Error};
use tokio::runtime::Handle;

use crate::{
    caches::{CacheKey, Caches, Invalidation},
    coherence::message,
    l1::EntryKey,
    shared::Shared,
};

/// Tells equal changes apart.
const NONCE_BYTES: usize = 8;
/// How long whoever has taken over a change has for its invalidation.
pub(crate) const TAKEN_FOR: Duration = Duration::from_secs(5);
/// Taken over at once.
pub(crate) const MOST_TAKEN: i64 = 64;

/// A change that may be made from now on. Dropping it counts as having made it.
#[must_use = "a change that is dropped invalidates its keys"]
pub struct Change {
    caches: Caches,
    keys: Vec<CacheKey>,
    /// As it lies in Redis; `None` when Redis could not be told.
    announced: Option<Bytes>,
}

impl Caches {
    /// Announces that what these keys and tags stand for is about to be changed. Announce, write, then say how it went: whatever
    /// becomes of this process in between, the keys are invalidated, after [`Config::change_timeout`] by another worker.
    ///
    /// While Redis is away this is no more than [`Caches::invalidate`] after the write.
    ///
    /// [`Config::change_timeout`]: crate::Config::change_timeout
    pub async fn announce(&self, keys: &[CacheKey]) -> Change {
        let shared = self.shared();
        let change = shared.encode_change(keys);
        let is_told = shared.l2.announce(&change, shared.config.change_timeout).await.is_ok();
        Change { caches: self.clone(), keys: keys.to_vec(), announced: is_told.then_some(change) }
    }
}

impl Change {
    /// The change is committed, or may be: nobody is to be answered with what was there before.
    pub async fn committed(mut self) -> Invalidation {
        let (keys, announced) = (mem::take(&mut self.keys), self.announced.take());
        finish(&self.caches, &keys, announced).await
    }

    /// Nothing was changed.
    pub async fn withdrawn(mut self) {
        self.keys.clear();
        settle(&self.caches, self.announced.take());
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        // A runtime that is gone makes no calls; then another worker will.
        if self.keys.is_empty() || Handle::try_current().is_err() {
            return;
        }
        let (caches, keys, announced) = (self.caches.clone(), mem::take(&mut self.keys), self.announced.take());
        self.caches.spawn(async move {
            finish(&caches, &keys, announced).await;
        });
    }
}

async fn finish(caches: &Caches, keys: &[CacheKey], announced: Option<Bytes>) -> Invalidation {
    let outcome = caches.invalidate(keys).await;
    // Otherwise it is queued in this process, which may not live until it is delivered.
    if outcome == Invalidation::Published {
        settle(caches, announced);
    }
    outcome
}

/// Nobody has to wait for it: at worst another worker invalidates once more.
fn settle(caches: &Caches, announced: Option<Bytes>) {
    let Some(change) = announced else { return };
    let shared = caches.shared().clone();
    caches.spawn(async move {
        let _ = shared.l2.settle(&change).await;
    });
}

/// Makes the invalidations of writers that have died.
pub(crate) async fn finish_overdue(shared: &Shared) -> Result<(), Error> {
    for change in shared.l2.overdue().await? {
        let keys = shared.decode_change(&change);
        tracing::warn!(keys = keys.len(), "a writer ended before it invalidated what it had changed; this is done now");
        shared.metrics.overdue_changes.inc();
        shared.publish(&keys).await?;
        shared.l2.settle(&change).await?;
    }
    Ok(())
}

impl Shared {
    fn encode_change(&self, keys: &[CacheKey]) -> Bytes {
        let namespaces = self.namespaces.borrow();
        let names: Vec<&str> =
            keys.iter().flat_map(|CacheKey(key)| [namespaces[key.namespace as usize].name, &*key.key]).collect();
        let mut change = fastrand::u64(..).to_le_bytes().to_vec();
        change.extend_from_slice(&message::encode_keys(&names));
        change.into()
    }

    /// What of a change this worker knows: another release may have other namespaces, whose workers nobody can tell from here.
    fn decode_change(&self, change: &[u8]) -> Vec<EntryKey> {
        let names = change.get(NONCE_BYTES..).and_then(message::decode_keys).unwrap_or_default();
        let namespaces = self.namespaces.borrow();
        let key = |pair: &[String]| {
            let namespace = namespaces.iter().find(|namespace| namespace.name == pair[0])?;
            Some(EntryKey::new(namespace.id, &pair[1]))
        };
        names.chunks_exact(2).filter_map(key).collect()
    }
}
