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
    coherence::validity::Trust,
    config::{LONGEST, Options},
    envelope::{self, MAX_VALUE_BYTES},
    error::LoadError,
    flight::{Flight, Joined, Landed, Outcome, Progress, Untyped},
    freshness::Freshness,
    hit::{Hit, Loaded, Source},
    keys::KeyHash,
    l1::{Entry, EntryKey, EntryRef},
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
    /// The load goes on when the caller goes away, in a task of its own. A loader must not read its own namespace: two that wait
    /// for each other's keys would wait until they are cut off.
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
            Some(found) => match found.times.at(now_ms, || 1.0 - fastrand::f64()) {
                Freshness::Spent => None,
                Freshness::Old => Some(found),
                Freshness::Fresh => return Ok(self.hit_in_memory(found, now_ms)),
                Freshness::Early => {
                    self.renew(key, hash, options, &found, || loading(load));
                    return Ok(self.hit_in_memory(found, now_ms));
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

    /// The value in this worker's memory, if it is valid. It may be old.
    fn in_memory(&self, key: &str, hash: KeyHash, now_ms: u64) -> Option<Landed> {
        let shared = self.shared();
        let Entry { landed, .. } = shared.l1.get(&EntryRef { namespace: self.namespace.id, key })?;
        let is_valid = shared.is_valid(&self.namespace, hash, &landed.validity, now_ms);
        is_valid.then_some(Landed { source: Source::L1, ..landed })
    }

    fn hit_in_memory(&self, found: Landed, now_ms: u64) -> Hit<V> {
        match found.value {
            Some(_) => self.namespace.metrics.l1_hit.inc(),
            None => self.namespace.metrics.l1_negative.inc(),
        }
        hit(found, now_ms)
    }

    /// Loads a value anew before its time is over, unless somebody does already. Nobody waits for it, and whoever joins it can make
    /// do with `present`.
    fn renew(&self, key: &str, hash: KeyHash, options: &Options, present: &Landed, loading: impl FnOnce() -> Loading) {
        let shared = self.shared();
        // Without Redis every worker would do it for itself.
        if present.version == 0 || !shared.l2.is_reachable() {
            return;
        }
        let entry_key = EntryKey::new(self.namespace.id, key);
        let joined = shared.flights.join(entry_key, hash, shared.clock.now_ms(), |_| true, || None::<()>);
        if let Ok(Joined::Started(flight, _)) = joined {
            flight.offer(present.clone());
            self.start(flight, options, present.version, loading());
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
        shared.looked(&self.namespace).await;
        let entry_key = EntryKey::new(self.namespace.id, key);
        let soft = Instant::now() + options.soft_timeout.min(LONGEST);
        let mut waiting = Waiting { shared, namespace: &self.namespace, hash, options, old, soft };
        let mut has_waited = false;
        loop {
            let now_ms = shared.clock.now_ms();
            let recheck = || {
                let found = self.in_memory(key, hash, now_ms)?;
                (found.times.at(now_ms, || 1.0) == Freshness::Fresh).then_some(found)
            };
            let stands = |old: &Landed| waiting.may_make_do(old, options.stale_if_error);
            let outcome = match shared.flights.join(entry_key.clone(), hash, now_ms, stands, recheck) {
                Err(found) => return Ok(self.hit_in_memory(found, now_ms)),
                Ok(Joined::Failed(error, old)) => waiting.make_do(old, error),
                Ok(Joined::Waiting(progress)) => waiting.outcome(progress).await,
                Ok(Joined::Started(flight, progress)) => {
                    if let Some(old) = &waiting.old {
                        flight.offer(old.clone());
                    }
                    self.start(flight, options, 0, loading());
                    return Ok(self.answer(waiting.outcome(progress).await?, false));
                }
            };
            let landed = outcome?;
            // That load may have begun before a tag was invalidated, and this caller may have come after; the next one begins
            // now.
            if has_waited || shared.are_tags_valid(&landed.validity) {
                return Ok(self.answer(landed, true));
            }
            has_waited = true;
            // What this caller could make do with is not for those who come now.
            waiting.old = None;
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

    fn answer(&self, landed: Landed, collapsed: bool) -> Hit<V> {
        let hit = Hit { collapsed, ..hit(landed, self.shared().clock.now_ms()) };
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
    namespace: &'a NamespaceState,
    hash: KeyHash,
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
                None => self.old = self.old.take().or(old),
            }
            let is_alive = if self.old.is_none() {
                progress.changed().await.is_ok()
            } else {
                match tokio::time::timeout_at(self.soft.into(), progress.changed()).await {
                    Ok(changed) => changed.is_ok(),
                    // An invalidation may have come meanwhile.
                    Err(_) => match self.stand_in(self.options.stale_while_revalidate) {
                        Some(old) => return Ok(old),
                        None => progress.changed().await.is_ok(),
                    },
                }
            };
            if !is_alive {
                return self.make_do(None, LoadError::Abandoned);
            }
        }
    }

    /// The old value in place of a new one that cannot be loaded.
    fn make_do(&mut self, old: Option<Landed>, error: LoadError) -> Outcome {
        self.old = self.old.take().or(old);
        self.stand_in(self.options.stale_if_error).ok_or(error)
    }

    /// The old value, if this caller may be answered with it now: it may have come after an invalidation.
    fn stand_in(&self, window: Duration) -> Option<Landed> {
        self.old.as_ref().filter(|old| self.may_make_do(old, window)).cloned()
    }

    fn may_make_do(&self, old: &Landed, window: Duration) -> bool {
        self.shared.may_stand_in(self.namespace, self.hash, old, window)
    }
}

fn hit<V: Send + Sync + 'static>(landed: Landed, now_ms: u64) -> Hit<V> {
    Hit {
        source: landed.source,
        collapsed: false,
        shared: landed.validity.trust == Trust::Coordinated,
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
