//! Changes announced before they are made: should their writer die between the commit and the invalidation, another worker
//! makes the invalidation (trap T13).
//!
//! An announcement is a member of a sorted set in Redis, by the time at which somebody else is to act: random bytes, and what
//! is to be invalidated. The watchdogs look every second for what is overdue.

use std::{collections::BTreeMap, mem, time::Duration};

use redis_store::{Bytes, Error};
use tokio::runtime::Handle;

use crate::{
    caches::{CacheKey, Caches, Invalidation},
    coherence::message,
    keys::{self, KeyHash, LaneKeys},
    l1::EntryKey,
    l2::{Group, LaneAddress},
    shared::{KEYS_PER_CALL, Shared},
};

/// Tells equal changes apart.
const NONCE_BYTES: usize = 8;
/// How long whoever has taken over a change has for its invalidation.
pub(crate) const TAKEN_FOR: Duration = Duration::from_secs(5);
/// Taken over at once.
pub(crate) const MOST_TAKEN: i64 = 8;
/// A longer list of keys is not announced: whoever takes changes over reads several of them at once.
const LONGEST_CHANGE: usize = 512 * 1024;

/// A change that may be made from now on. Dropping it is saying that it is [in doubt](Change::in_doubt).
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
        let is_told = if change.len() > LONGEST_CHANGE {
            tracing::error!(bytes = change.len(), "a change of too many keys is not announced");
            false
        } else {
            shared.l2.announce(&change, shared.config.change_timeout).await.is_ok()
        };
        Change { caches: self.clone(), keys: keys.to_vec(), announced: is_told.then_some(change) }
    }
}

impl Change {
    /// The change is committed: nobody is to be answered with what was there before.
    pub async fn committed(mut self) -> Invalidation {
        let outcome = self.caches.invalidate(&mem::take(&mut self.keys)).await;
        // Otherwise it is queued in this process, which may not live until it is delivered.
        if outcome == Invalidation::Published {
            settle(&self.caches, self.announced.take());
        }
        outcome
    }

    /// The change is committed, or not, or will be in a moment: its answer was lost. The keys are invalidated now, and once more
    /// when the announcement is overdue, should the database have taken its time.
    pub async fn in_doubt(mut self) -> Invalidation {
        self.caches.invalidate(&mem::take(&mut self.keys)).await
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
        let (caches, keys) = (self.caches.clone(), mem::take(&mut self.keys));
        self.caches.spawn(async move {
            caches.invalidate(&keys).await;
        });
    }
}

/// Nobody has to wait for it: at worst another worker invalidates once more.
fn settle(caches: &Caches, announced: Option<Bytes>) {
    let Some(change) = announced else { return };
    let shared = caches.shared().clone();
    caches.spawn(async move {
        let _ = shared.l2.settle(&change).await;
    });
}

/// Makes the invalidations of writers that have died, or could not say whether their change was made.
pub(crate) async fn finish_overdue(shared: &Shared) -> Result<(), Error> {
    for change in shared.l2.overdue().await? {
        match shared.finish(&change).await {
            Ok(()) => shared.l2.settle(&change).await?,
            Err(error) if error.is_outage() => return Err(error),
            // It comes up again; the others have nothing to do with it.
            Err(error) => tracing::error!(%error, "redis refuses the invalidations of a change that is overdue"),
        }
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

    /// Invalidates what an overdue change names.
    async fn finish(&self, change: &[u8]) -> Result<(), Error> {
        self.metrics.overdue_changes.inc();
        let Some(names) = change.get(NONCE_BYTES..).and_then(message::decode_keys) else {
            tracing::error!(bytes = change.len(), "an overdue change cannot be read and is dropped");
            return Ok(());
        };
        tracing::warn!(
            keys = names.len() / 2,
            "it was not said in time that a change is made; what it names is invalidated now"
        );
        let (mut known, mut foreign) = (Vec::new(), Vec::new());
        {
            let namespaces = self.namespaces.borrow();
            for pair in names.chunks_exact(2) {
                match namespaces.iter().find(|namespace| namespace.name == pair[0]) {
                    Some(namespace) => known.push(EntryKey::new(namespace.id, &pair[1])),
                    None => foreign.push((pair[0].as_str(), pair[1].as_str())),
                }
            }
        }
        self.publish(&known).await?;
        self.publish_foreign(&foreign).await
    }

    /// Invalidates keys of namespaces that only other releases have.
    async fn publish_foreign(&self, keys: &[(&str, &str)]) -> Result<(), Error> {
        for keys in keys.chunks(KEYS_PER_CALL) {
            let mut lanes: BTreeMap<(&str, usize), Vec<&str>> = BTreeMap::new();
            for (namespace, key) in keys {
                lanes.entry((namespace, KeyHash::of(key).lane())).or_default().push(key);
            }
            for ((namespace, lane), keys) in lanes {
                let (names, channel) = (
                    LaneKeys::new(&self.config.prefix, namespace, lane),
                    keys::channel(&self.config.prefix, namespace),
                );
                let address = LaneAddress { keys: &names, channel: &channel, lane };
                let groups: Vec<Group<'_>> =
                    message::split(&keys).map(|keys| Group { address, keys: keys.to_vec() }).collect();
                self.l2.invalidate(&groups).await?;
            }
        }
        Ok(())
    }
}
