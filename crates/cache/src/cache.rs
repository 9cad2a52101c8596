//! The typed handle of one namespace.

use std::{
    any::Any,
    error::Error,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use telemetry::RequestContext;
use tokio::sync::watch;

use crate::{
    caches::{CacheKey, Caches, Invalidation},
    config::Options,
    envelope::{self, MAX_VALUE_BYTES},
    error::LoadError,
    flight::{Flight, Joined, Landed, Outcome, Untyped},
    hit::{Hit, Loaded, Source},
    keys::KeyHash,
    l1::{EntryKey, EntryRef, Trust},
    load::{Encoded, Load, Loading, Payload},
    shared::{NamespaceState, Shared},
    tags,
};

/// Entries of type `V`. Cheap to clone.
pub struct Cache<V> {
    pub(crate) caches: Caches,
    pub(crate) namespace: Arc<NamespaceState>,
    pub(crate) value: PhantomData<fn() -> V>,
}

impl<V> Clone for Cache<V> {
    fn clone(&self) -> Self {
        Self { caches: self.caches.clone(), namespace: Arc::clone(&self.namespace), value: PhantomData }
    }
}

impl<V> Cache<V>
where
    V: Serialize + Send + Sync + 'static,
{
    /// The value of `key`: from this worker's memory, else from Redis, else from `load`, which runs once however many
    /// callers and workers wait for it. `load` says `None` when there is no such row; that is remembered, too. It may say
    /// more of how the entry is to be kept, with [`Loaded`].
    ///
    /// The load goes on when the caller goes away, in a task of its own.
    pub async fn get_or_load<F, Fut, L, E>(&self, key: &str, options: &Options, load: F) -> Result<Hit<V>, LoadError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<L, E>> + Send + 'static,
        L: Into<Loaded<V>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let hash = KeyHash::of(key);
        let metrics = &self.namespace.metrics;
        if let Some(hit) = self.in_memory(key, hash) {
            match hit.value {
                Some(_) => metrics.l1_hit.inc(),
                None => metrics.l1_negative.inc(),
            }
            return Ok(hit);
        }
        metrics.l1_miss.inc();
        self.join(key, hash, options, || loading(load)).await
    }

    /// Makes sure that nobody is answered with what these keys held before this call; see [`Caches::invalidate`].
    pub async fn invalidate(&self, keys: &[&str]) -> Invalidation {
        let keys: Vec<CacheKey> = keys.iter().map(|key| self.key(key)).collect();
        self.caches.invalidate(&keys).await
    }

    /// A key of this namespace, for [`Caches::invalidate`].
    pub fn key(&self, key: &str) -> CacheKey {
        CacheKey(EntryKey::new(self.namespace.id, key))
    }

    fn in_memory(&self, key: &str, hash: KeyHash) -> Option<Hit<V>> {
        let shared = self.shared();
        let entry = shared.l1.get(&EntryRef { namespace: self.namespace.id, key })?;
        let lane = self.namespace.lane(hash.lane());
        let now_ms = shared.clock.now_ms();
        let tags = entry.tags.as_deref().unwrap_or_default();
        let is_trusted = match entry.trust {
            Trust::Local => true,
            Trust::Coordinated => {
                let of_tags = tags.iter().map(|tag| tag.confirmed_ms(&shared.tags));
                let confirmed_ms = of_tags.fold(lane.confirmed_ms(), u64::min);
                confirmed_ms > 0 && now_ms.saturating_sub(confirmed_ms) <= shared.disconnected_ttl_ms()
            }
        };
        let left_ms = entry.expires_ms.checked_sub(now_ms).filter(|left| *left > 0)?;
        let is_valid = lane.allows(hash, entry.stamp) && tags.iter().all(|tag| tag.is_valid(&shared.tags));
        (is_trusted && is_valid).then(|| Hit {
            value: typed(entry.value),
            source: Source::L1,
            collapsed: false,
            shared: entry.trust == Trust::Coordinated,
            ttl: Duration::from_millis(left_ms),
        })
    }

    /// Waits for the load of `key`, and starts it if nobody has.
    async fn join(
        &self,
        key: &str,
        hash: KeyHash,
        options: &Options,
        loading: impl FnOnce() -> Loading,
    ) -> Result<Hit<V>, LoadError> {
        let shared = self.shared();
        let entry_key = EntryKey::new(self.namespace.id, key);
        let mut has_waited = false;
        loop {
            let recheck = || self.in_memory(key, hash);
            let outcome = match shared.flights.join(entry_key.clone(), hash, shared.clock.now_ms(), recheck) {
                Err(hit) => return Ok(hit),
                Ok(Joined::Failed(error)) => return Err(error),
                Ok(Joined::Waiting(outcome)) => outcome,
                Ok(Joined::Started(flight, outcome)) => {
                    self.start(flight, options, loading());
                    return Ok(self.hit(landed(outcome).await?, false));
                }
            };
            let landed = landed(outcome).await?;
            // That load may have begun before a tag was invalidated, and this caller may have come after; the next one begins
            // now.
            let tags = landed.tags.as_deref().unwrap_or_default();
            if has_waited || tags.iter().all(|tag| tag.is_valid(&shared.tags)) {
                return Ok(self.hit(landed, true));
            }
            has_waited = true;
        }
    }

    fn start(&self, flight: Arc<Flight>, options: &Options, loading: Loading) {
        let (shared, namespace) = (Arc::clone(self.shared()), Arc::clone(&self.namespace));
        let load = Load { shared, namespace, flight, options: *options };
        // What the loader logs belongs to the request that caused it.
        match RequestContext::current() {
            Some(context) => self.caches.spawn(telemetry::in_request(context, load.run(loading))),
            None => self.caches.spawn(load.run(loading)),
        }
    }

    fn hit(&self, landed: Landed, collapsed: bool) -> Hit<V> {
        let left_ms = landed.expires_ms.saturating_sub(self.shared().clock.now_ms());
        Hit {
            value: typed(landed.value),
            source: landed.source,
            collapsed,
            shared: landed.shared,
            ttl: Duration::from_millis(left_ms),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.caches.shared()
    }
}

/// Waits until a load has ended.
async fn landed(mut outcome: watch::Receiver<Option<Outcome>>) -> Outcome {
    match outcome.wait_for(Option::is_some).await {
        Ok(landed) => landed.clone().unwrap_or(Err(LoadError::Abandoned)),
        Err(_) => Err(LoadError::Abandoned),
    }
}

/// The loader with its type hidden, and its value encoded by the thread that loaded it.
fn loading<V, F, Fut, L, E>(load: F) -> Loading
where
    V: Serialize + Send + Sync + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<L, E>> + Send + 'static,
    L: Into<Loaded<V>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    Box::pin(async move {
        let began = Instant::now();
        let loaded = load().await.map_err(|error| LoadError::Failed(Arc::from(error.into())))?;
        let Loaded { value, tags, ttl } = loaded.into();
        let payload = payload(value.as_ref(), &tags);
        let value: Untyped = value.map(|value| Arc::new(value) as Arc<dyn Any + Send + Sync>);
        Ok(Encoded { value, payload, tags, ttl, took: began.elapsed() })
    })
}

fn payload<V: Serialize>(value: Option<&V>, tags: &[String]) -> Payload {
    if let Err(error) = tags::check(tags) {
        tracing::error!(%error, "a value cannot carry its tags and is not cached");
        return Payload::Unstorable;
    }
    match value.map(envelope::encode) {
        None => Payload::Absent,
        Some(Ok(bytes)) if bytes.len() <= MAX_VALUE_BYTES => Payload::Value(bytes),
        Some(Ok(_)) => Payload::Unstorable,
        Some(Err(error)) => {
            tracing::error!(%error, "a value cannot be encoded and is not cached");
            Payload::Unstorable
        }
    }
}

fn typed<V: Send + Sync + 'static>(value: Untyped) -> Option<Arc<V>> {
    value.map(|value| value.downcast().expect("a namespace holds values of one type"))
}
