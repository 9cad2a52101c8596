//! The typed handle of one namespace.

use std::{any::Any, error::Error, marker::PhantomData, sync::Arc, time::Instant};

use serde::Serialize;
use telemetry::RequestContext;
use tokio::sync::watch;

use crate::{
    caches::{CacheKey, Caches, Invalidation},
    config::{LONGEST, Options},
    envelope::{self, MAX_VALUE_BYTES},
    error::LoadError,
    flight::{Flight, Joined, Landed, Outcome, Progress, Untyped},
    freshness::Freshness,
    hit::{Hit, Loaded},
    keys::KeyHash,
    l1::{Entry, EntryKey, EntryRef, Trust},
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
        let now_ms = self.shared().clock.now_ms();
        let old = match self.in_memory(key, hash, now_ms) {
            None => None,
            Some(entry) => match entry.times.at(now_ms, || 1.0 - fastrand::f64()) {
                Freshness::Spent => None,
                Freshness::Old => Some(entry.into_landed()),
                Freshness::Fresh => return Ok(self.hit_in_memory(entry, now_ms)),
                Freshness::Early => {
                    self.renew(key, hash, options, entry.version, || loading(load));
                    return Ok(self.hit_in_memory(entry, now_ms));
                }
            },
        };
        self.namespace.metrics.l1_miss.inc();
        self.join(key, hash, options, old, || loading(load)).await
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

    /// The entry in this worker's memory, if no invalidation since has made it invalid and Redis has not been silent for so
    /// long that one may have been missed. It may be old.
    fn in_memory(&self, key: &str, hash: KeyHash, now_ms: u64) -> Option<Entry> {
        let shared = self.shared();
        let entry = shared.l1.get(&EntryRef { namespace: self.namespace.id, key })?;
        let lane = self.namespace.lane(hash.lane());
        let tags = entry.tags.as_deref().unwrap_or_default();
        let is_trusted = match entry.trust {
            Trust::Local => true,
            Trust::Coordinated => {
                let of_tags = tags.iter().map(|tag| tag.confirmed_ms(&shared.tags));
                let confirmed_ms = of_tags.fold(lane.confirmed_ms(), u64::min);
                confirmed_ms > 0 && now_ms.saturating_sub(confirmed_ms) <= shared.disconnected_ttl_ms()
            }
        };
        let is_valid = lane.allows(hash, entry.stamp) && tags.iter().all(|tag| tag.is_valid(&shared.tags));
        (is_trusted && is_valid).then_some(entry)
    }

    fn hit_in_memory(&self, entry: Entry, now_ms: u64) -> Hit<V> {
        match entry.value {
            Some(_) => self.namespace.metrics.l1_hit.inc(),
            None => self.namespace.metrics.l1_negative.inc(),
        }
        hit(entry.into_landed(), now_ms)
    }

    /// Loads a value anew before its time is over, unless somebody does already. Nobody waits for it.
    fn renew(&self, key: &str, hash: KeyHash, options: &Options, version: u64, loading: impl FnOnce() -> Loading) {
        let shared = self.shared();
        // Without Redis every worker would do it for itself.
        if version == 0 || !shared.l2.is_reachable() {
            return;
        }
        let entry_key = EntryKey::new(self.namespace.id, key);
        let joined = shared.flights.join(entry_key, hash, shared.clock.now_ms(), || None::<()>);
        if let Ok(Joined::Started(flight, _)) = joined {
            self.start(flight, options, version, loading());
        }
    }

    /// Waits for the load of `key`, and starts it if nobody has. `old` stands in for what cannot be had in time.
    async fn join(
        &self,
        key: &str,
        hash: KeyHash,
        options: &Options,
        old: Option<Landed>,
        loading: impl FnOnce() -> Loading,
    ) -> Result<Hit<V>, LoadError> {
        let shared = self.shared();
        // The first look ends what began before it.
        shared.looked().await;
        let entry_key = EntryKey::new(self.namespace.id, key);
        let mut waiting = Waiting { shared, options, old, soft: Instant::now() + options.soft_timeout.min(LONGEST) };
        let mut has_waited = false;
        loop {
            let now_ms = shared.clock.now_ms();
            let recheck = || {
                let entry = self.in_memory(key, hash, now_ms)?;
                (entry.times.at(now_ms, || 1.0) == Freshness::Fresh).then_some(entry)
            };
            let (outcome, collapsed) = match shared.flights.join(entry_key.clone(), hash, now_ms, recheck) {
                Err(entry) => return Ok(self.hit_in_memory(entry, now_ms)),
                Ok(Joined::Failed(error, old)) => (waiting.make_do(old, error), true),
                Ok(Joined::Waiting(progress)) => (waiting.outcome(progress).await, true),
                Ok(Joined::Started(flight, progress)) => {
                    if let Some(old) = &waiting.old {
                        flight.offer(old.clone());
                    }
                    self.start(flight, options, 0, loading());
                    let hit = self.answer(waiting.outcome(progress).await?);
                    return Ok(hit);
                }
            };
            let landed = outcome?;
            // That load may have begun before a tag was invalidated, and this caller may have come after; the next one begins
            // now.
            if has_waited || shared.are_valid(landed.tags.as_deref()) {
                return Ok(Hit { collapsed, ..self.answer(landed) });
            }
            has_waited = true;
        }
    }

    fn start(&self, flight: Arc<Flight>, options: &Options, replaces: u64, loading: Loading) {
        let (shared, namespace) = (Arc::clone(self.shared()), Arc::clone(&self.namespace));
        let load = Load { shared, namespace, flight, options: *options, replaces };
        // What the loader logs belongs to the request that caused it.
        match RequestContext::current() {
            Some(context) => self.caches.spawn(telemetry::in_request(context, load.run(loading))),
            None => self.caches.spawn(load.run(loading)),
        }
    }

    fn answer(&self, landed: Landed) -> Hit<V> {
        let hit = hit(landed, self.shared().clock.now_ms());
        if hit.stale {
            self.namespace.metrics.l1_stale.inc();
        }
        hit
    }

    fn shared(&self) -> &Arc<Shared> {
        self.caches.shared()
    }
}

/// A caller who waits for a load.
struct Waiting<'a> {
    shared: &'a Shared,
    options: &'a Options,
    /// What it makes do with if it must.
    old: Option<Landed>,
    /// When it makes do with that although the load goes on.
    soft: Instant,
}

impl Waiting<'_> {
    /// Waits until the load has ended, or has taken so long that the old value will do.
    async fn outcome(&mut self, mut progress: watch::Receiver<Progress>) -> Outcome {
        loop {
            let (old, outcome) = {
                let progress = progress.borrow_and_update();
                (progress.old.clone(), progress.outcome.clone())
            };
            match outcome {
                Some(Ok(landed)) => return Ok(landed),
                Some(Err(error)) => return self.make_do(old, error),
                None => self.take(old),
            }
            let changed = progress.changed();
            let window = self.options.stale_while_revalidate;
            let stand_in = self.old.as_ref().filter(|old| old.times.may_stand_in(self.shared.clock.now_ms(), window));
            let is_alive = match stand_in {
                None => changed.await.is_ok(),
                Some(old) => match tokio::time::timeout_at(self.soft.into(), changed).await {
                    Ok(changed) => changed.is_ok(),
                    Err(_) => return Ok(old.clone()),
                },
            };
            if !is_alive {
                return self.make_do(None, LoadError::Abandoned);
            }
        }
    }

    /// The old value in place of a new one that cannot be loaded.
    fn make_do(&mut self, old: Option<Landed>, error: LoadError) -> Outcome {
        self.take(old);
        let window = self.options.stale_if_error;
        let now_ms = self.shared.clock.now_ms();
        let stand_in = self.old.take().filter(|old| old.times.may_stand_in(now_ms, window));
        stand_in.ok_or(error)
    }

    /// Takes over an old value that another has found. This caller may have come after an invalidation of one of its tags.
    fn take(&mut self, old: Option<Landed>) {
        if self.old.is_none() {
            self.old = old.filter(|old| self.shared.are_valid(old.tags.as_deref()));
        }
    }
}

fn hit<V: Send + Sync + 'static>(landed: Landed, now_ms: u64) -> Hit<V> {
    Hit {
        source: landed.source,
        collapsed: false,
        shared: landed.shared,
        stale: landed.version > 0 && now_ms >= landed.times.fresh_ms,
        ttl: landed.times.left(now_ms),
        value: typed(landed.value),
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
