//! The cache of a worker: all namespaces, their memory, and the tasks that keep it in step.

use std::{
    any::Any,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
};

use redis_store::RedisStore;
use serde::{Serialize, de::DeserializeOwned};
use telemetry::Registry;
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    cache::Cache,
    coherence,
    config::{Config, Namespace, Options},
    envelope,
    keys::KeyHash,
    l1::EntryKey,
    shared::Shared,
    tags,
};

/// The cache of one worker. Cheap to clone; its tasks end with the last clone of it and of its namespaces' handles.
#[derive(Clone)]
pub struct Caches {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    registry: Registry,
}

/// What became of an invalidation. Either way this worker does not answer with the old value any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation {
    /// Redis has removed the entries, and every worker that can be reached is being told.
    Published,
    /// Redis is away: it will be told when it is back. Until then other workers may answer with what they have.
    Queued,
}

/// A key together with its namespace, or a tag, for invalidating many things in one call.
#[derive(Debug, Clone)]
pub struct CacheKey(pub(crate) EntryKey);

impl Caches {
    /// Starts the tasks that follow the invalidations of other workers. Must be called inside a tokio runtime.
    pub fn new(config: Config, store: RedisStore, registry: &Registry) -> Self {
        let shared = Arc::new(Shared::new(config, store, registry));
        let tasks = Arc::new(Tasks::default());
        tasks.spawn(coherence::subscribe(Arc::clone(&shared)));
        tasks.spawn(coherence::watch(Arc::clone(&shared)));
        Self { shared, tasks, registry: registry.clone() }
    }

    /// Opens a namespace for values of type `V`. Best done at the start for all: each addition renews the subscription.
    ///
    /// # Panics
    /// When the name is taken, or is not made of lower-case letters, digits and dashes.
    pub fn namespace<V>(&self, namespace: Namespace) -> Cache<V>
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let state = self.shared.add_namespace(&self.registry, namespace.name, namespace.schema, decode::<V>);
        Cache { caches: self.clone(), namespace: state, value: PhantomData }
    }

    /// A tag, for [`Caches::invalidate`]: then all entries that carry it are outdated, in every namespace, at a cost that
    /// does not depend on how many there are. See [`Loaded::tags`](crate::Loaded::tags).
    pub fn tag(&self, tag: &str) -> CacheKey {
        CacheKey(EntryKey::new(tags::NAMESPACE_ID, tag))
    }

    /// Another budget for L1 from now on, when more or fewer workers divide the host's.
    pub fn set_l1_bytes(&self, l1_bytes: u64) {
        self.shared.l1.set_budget(l1_bytes);
    }

    /// The configured defaults for a read.
    pub fn options(&self) -> Options {
        Options::new(&self.shared.config)
    }

    /// Makes sure that nobody is answered with what these keys held before this call. Call it **after** the change is
    /// committed: a value loaded from then on is new, one loaded before is refused.
    ///
    /// This worker forgets the keys at the first poll, and what carries a tag before this returns; other workers are told
    /// by Redis, usually within a millisecond.
    /// Dropping the future after its first poll does not stop the invalidation.
    pub async fn invalidate(&self, keys: &[CacheKey]) -> Invalidation {
        let keys: Vec<EntryKey> = keys.iter().map(|key| key.0.clone()).collect();
        for key in &keys {
            self.shared.forget(key);
        }
        let (answer, outcome) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            // Nobody may be waiting any more.
            let _ = answer.send(invalidate(&shared, &keys).await);
        });
        // The task always answers, unless the runtime is ending.
        outcome.await.unwrap_or(Invalidation::Queued)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }
}

async fn invalidate(shared: &Shared, keys: &[EntryKey]) -> Invalidation {
    match shared.publish(keys).await {
        Ok(()) => Invalidation::Published,
        Err(error) => {
            if !error.is_outage() {
                tracing::error!(%error, "redis refuses the cache's invalidations");
            }
            for key in keys {
                // Queued first: from then on nobody reads this key from Redis, and what was read there until now goes.
                shared.pending.push(key.clone(), KeyHash::of(&key.key));
                shared.outdate(key);
            }
            Invalidation::Queued
        }
    }
}

/// The owner of every task of the cache. They are cut off when it is dropped.
#[derive(Debug, Default)]
struct Tasks {
    running: Mutex<JoinSet<()>>,
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = running.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the cache ended unexpectedly");
            }
        }
        running.spawn(task);
    }
}

fn decode<V: DeserializeOwned + Send + Sync + 'static>(payload: &[u8]) -> Option<Arc<dyn Any + Send + Sync>> {
    Some(Arc::new(envelope::decode::<V>(payload)?))
}
