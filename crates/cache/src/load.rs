//! One load from its start to its end: Redis, else the lease, else the loader; then Redis again and this worker's memory.

pub(crate) mod slots;

use std::{panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};

use futures_util::FutureExt;

use crate::{
    coherence::lane::{Lane, Stamp},
    config::{LONGEST, Options},
    envelope::{self, Head, Mismatch},
    error::LoadError,
    flight::{Flight, Landed, Untyped},
    freshness::Times,
    hit::Source,
    l1::{Entry, Trust},
    l2::{Grant, LaneAddress, LeaseRequest, Leased},
    shared::{NamespaceState, Shared},
    tags::{Marks, Tag},
};

/// The lease outlives the loader by this much, so that a slow fill still finds it.
const LEASE_MARGIN: Duration = Duration::from_secs(1);
/// Waiters are woken by a message; should it be lost, they ask again, ever more rarely.
const FIRST_POLL: Duration = Duration::from_millis(50);
const LAST_POLL: Duration = Duration::from_millis(250);

/// What a loader brought, without its type.
pub(crate) struct Encoded {
    pub(crate) value: Untyped,
    pub(crate) payload: Payload,
    pub(crate) tags: Vec<String>,
    pub(crate) ttl: Option<Duration>,
    /// How long the loader took.
    pub(crate) took: Duration,
}

/// How a loaded value can be stored.
pub(crate) enum Payload {
    /// Encoded.
    Value(Vec<u8>),
    /// There is no row.
    Absent,
    /// Too large, or not to be encoded: it is answered and not stored.
    Unstorable,
}

/// A loader, not started yet.
pub(crate) type Loading = Pin<Box<dyn Future<Output = Result<Encoded, LoadError>> + Send>>;

/// How a value is to be had.
enum Route {
    /// It is in Redis.
    Found(Box<Arrival>),
    /// We are the one loader among all workers.
    Leased(Grant, Seen),
    /// Redis is away, or does not know of an invalidation yet.
    Alone(Seen),
    /// Another worker's loader has failed, and nobody tries again for so long.
    Failed(Duration),
}

/// What had been applied before a value was read or loaded, and so is reflected in it.
struct Seen {
    stamp: Stamp,
    marks: Marks,
}

/// A value and how it may be kept.
struct Arrival {
    landed: Landed,
    /// `None`: not to be kept.
    kept: Option<(Stamp, Trust)>,
    value_bytes: usize,
}

/// A load under way. It is over when this is dropped, whatever happened.
pub(crate) struct Load {
    pub(crate) shared: Arc<Shared>,
    pub(crate) namespace: Arc<NamespaceState>,
    pub(crate) flight: Arc<Flight>,
    pub(crate) options: Options,
    /// The version that is to be replaced although it is fresh; 0 for none.
    pub(crate) replaces: u64,
}

impl Load {
    /// Finds or loads the value and answers everybody who waits for it.
    pub(crate) async fn run(self, loading: Loading) {
        let outcome = match self.route().await {
            Route::Found(arrival) => Ok(*arrival),
            Route::Leased(grant, seen) => self.load_leased(loading, grant, seen).await,
            Route::Alone(seen) => self.load_alone(loading, seen).await,
            Route::Failed(hold) => return self.land(Err(LoadError::FailedElsewhere), hold),
        };
        self.land(outcome, self.hold());
    }

    async fn route(&self) -> Route {
        let flight = &self.flight;
        let seen = self.seen();
        if !self.shared.l2.is_reachable() || self.shared.pending.contains(&flight.key, flight.hash) {
            self.namespace.metrics.l2_unavailable.inc();
            return Route::Alone(seen);
        }
        if self.replaces > 0 {
            return self.lease(self.replaces).await;
        }
        let unwanted = match self.shared.l2.get(self.address(), &flight.key.key).await {
            Ok(Some(bytes)) => match self.open(&bytes, &seen, Reader::Unsure) {
                Ok(arrival) => return Route::Found(Box::new(arrival)),
                Err(version) => version,
            },
            Ok(None) => 0,
            Err(_) => {
                self.namespace.metrics.l2_unavailable.inc();
                return Route::Alone(seen);
            }
        };
        self.namespace.metrics.l2_miss.inc();
        self.lease(unwanted).await
    }

    /// Asks for the lease until it is granted, or somebody else has filled the entry.
    async fn lease(&self, mut unwanted: u64) -> Route {
        let (mut poll, mut died) = (FIRST_POLL, String::new());
        loop {
            let mut seen = self.seen();
            let request = LeaseRequest {
                address: self.address(),
                key: &self.flight.key.key,
                signature: envelope::signature(self.namespace.schema),
                unwanted,
                died: &died,
                lease: self.options.load_timeout + LEASE_MARGIN,
            };
            match self.shared.l2.lease(&request).await {
                Ok(Leased::Granted(grant)) => {
                    if self.lane().epoch() != Some(grant.epoch) {
                        self.shared.look_now.notify_one();
                    }
                    self.flight.granted(grant.token);
                    seen.stamp = seen.stamp.with_version(grant.token);
                    return Route::Leased(grant, seen);
                }
                Ok(Leased::Present(bytes)) => match self.open(&bytes, &seen, Reader::Told) {
                    Ok(arrival) => return Route::Found(Box::new(arrival)),
                    Err(version) if version != unwanted => unwanted = version,
                    Err(_) => return Route::Alone(seen),
                },
                Ok(Leased::Waiting { holder, .. }) if died != holder && self.shared.l2.has_ended(&holder) => {
                    self.shared.metrics.leases_taken_over.inc();
                    died = holder;
                }
                // The holder is either done, and wakes us, or dead; elsewhere that shows when its lease ends.
                Ok(Leased::Waiting { left, .. }) => {
                    let wait = poll.min(left + Duration::from_millis(1));
                    let _ = tokio::time::timeout(wait, self.flight.wake.notified()).await;
                    poll = (poll * 2).min(LAST_POLL);
                }
                Ok(Leased::FailedElsewhere { left }) => return Route::Failed(left),
                Err(_) => {
                    self.namespace.metrics.l2_unavailable.inc();
                    return Route::Alone(seen);
                }
            }
        }
    }

    /// Reads an entry; the error is the version that cannot be used, 0 when the lease script will see that for itself.
    fn open(&self, bytes: &[u8], seen: &Seen, reader: Reader) -> Result<Arrival, u64> {
        let metrics = &self.namespace.metrics;
        let envelope = envelope::open(self.namespace.schema, bytes).map_err(|mismatch| {
            metrics.l2_mismatch.inc();
            match mismatch {
                Mismatch::Foreign => 0,
                Mismatch::Corrupt => envelope::claimed_version(bytes).unwrap_or(0),
            }
        })?;
        // An entry of another epoch may be older than an invalidation that was lost with the epoch (trap T4).
        if reader == Reader::Unsure && self.lane().epoch() != Some(envelope.head.epoch) {
            return Err(0);
        }
        let shared = &self.shared;
        let Some(tags) = seen.marks.judge(&shared.tags, &shared.pending, &envelope.tags) else {
            return Err(envelope.head.version);
        };
        let redis_now_us = shared.clock.redis_now_us().ok_or(0_u64)?;
        let left = |until_us: u64| Duration::from_micros(until_us.saturating_sub(redis_now_us));
        let (fresh, whole) = (left(envelope.head.fresh_us), left(envelope.head.expires_us));
        // In memory it takes what it took before it was compressed.
        let value_bytes = envelope.payload.as_deref().map_or(0, <[u8]>::len);
        let value = match envelope.payload {
            None => None,
            Some(payload) => Some((self.namespace.decode)(&payload).ok_or_else(|| {
                metrics.l2_mismatch.inc();
                envelope.head.version
            })?),
        };
        let times = Times { load_ms: envelope.head.load_us.div_ceil(1000), ..self.times(fresh, whole) };
        let version = envelope.head.version;
        let landed = Landed { value, source: Source::L2, shared: true, times, version, tags };
        if fresh.is_zero() {
            metrics.l2_stale.inc();
            self.flight.offer(landed);
            return Err(version);
        }
        match landed.value {
            Some(_) => metrics.l2_hit.inc(),
            None => metrics.l2_negative.inc(),
        }
        let kept = Some((seen.stamp.with_version(version), Trust::Coordinated));
        Ok(Arrival { landed, kept, value_bytes })
    }

    async fn load_leased(&self, loading: Loading, grant: Grant, seen: Seen) -> Result<Arrival, LoadError> {
        let l2 = &self.shared.l2;
        let (address, key) = (self.address(), &*self.flight.key.key);
        let loaded = match self.load(loading).await {
            Ok(loaded) => loaded,
            Err(error) => {
                // Should this not arrive, the others wait until the lease ends.
                // What this worker has no room for another may have.
                let hold = if matches!(error, LoadError::Overloaded) { Duration::ZERO } else { self.hold() };
                let _ = l2.release(address, key, grant, hold).await;
                return Err(error);
            }
        };
        let ttl = jitter(self.ttl(&loaded));
        // That there is no row is not worth being remembered for long.
        let grace = if let Payload::Absent = loaded.payload { Duration::ZERO } else { self.options.grace() };
        let value_bytes = loaded.payload.len();
        // A detached load was invalidated here: Redis may not know of it yet, and would take the fill.
        let entry = match self.seal(&loaded, &seen, grant, (ttl, grace)) {
            Some(entry) if !self.flight.is_detached() => entry,
            _ => {
                let _ = l2.release(address, key, grant, Duration::ZERO).await;
                return Ok(self.passed_on(loaded, &seen));
            }
        };
        match l2.fill(address, key, grant, entry, ttl + grace).await {
            Ok(true) => {
                let load_ms = loaded.took.as_millis() as u32;
                let times = Times { load_ms, ..self.times(ttl, ttl + grace) };
                let landed = Landed { shared: true, version: grant.token, ..self.landed(loaded, &seen, times) };
                Ok(Arrival { landed, kept: Some((seen.stamp, Trust::Coordinated)), value_bytes })
            }
            Ok(false) => {
                self.namespace.metrics.rejected_by_lease.inc();
                Ok(self.passed_on(loaded, &seen))
            }
            Err(_) => Ok(self.kept_alone(loaded, &seen)),
        }
    }

    async fn load_alone(&self, loading: Loading, seen: Seen) -> Result<Arrival, LoadError> {
        let loaded = self.load(loading).await?;
        Ok(self.kept_alone(loaded, &seen))
    }

    async fn load(&self, loading: Loading) -> Result<Encoded, LoadError> {
        let metrics = &self.namespace.metrics;
        let in_turn = async {
            let _slot = self.namespace.slots.take().await?;
            AssertUnwindSafe(loading).catch_unwind().await.unwrap_or(Err(LoadError::Panicked))
        };
        let result = tokio::time::timeout(self.options.load_timeout, in_turn).await;
        let result = result.unwrap_or(Err(LoadError::TimedOut));
        match &result {
            Ok(Encoded { value: Some(_), .. }) => metrics.loader_value.inc(),
            Ok(Encoded { value: None, .. }) => metrics.loader_absent.inc(),
            Err(_) => metrics.loader_error.inc(),
        }
        result
    }

    /// Keeps a value that Redis knows nothing of; it is never written there later (trap T10).
    fn kept_alone(&self, loaded: Encoded, seen: &Seen) -> Arrival {
        if let Payload::Unstorable = loaded.payload {
            return self.passed_on(loaded, seen);
        }
        // Without jitter: a key is to be loaded once per `disconnected_ttl`, not a little more often.
        let ttl = self.ttl(&loaded).min(self.options.l1_ttl).min(self.shared.config.disconnected_ttl);
        Arrival {
            value_bytes: loaded.payload.len(),
            landed: self.landed(loaded, seen, Times::alone(self.shared.clock.now_ms(), ttl)),
            kept: Some((seen.stamp, Trust::Local)),
        }
    }

    /// Answers those who wait, and keeps nothing.
    fn passed_on(&self, loaded: Encoded, seen: &Seen) -> Arrival {
        let times = Times::alone(self.shared.clock.now_ms(), Duration::ZERO);
        Arrival { landed: self.landed(loaded, seen, times), kept: None, value_bytes: 0 }
    }

    /// What our loader brought; Redis knows nothing of it yet.
    fn landed(&self, loaded: Encoded, seen: &Seen, times: Times) -> Landed {
        let tags = seen.marks.stamps(&loaded.tags);
        Landed { value: loaded.value, source: Source::Loader, shared: false, times, version: 0, tags }
    }

    /// The times of an entry that Redis holds, too, as fresh for `fresh` and at all for `whole`.
    fn times(&self, fresh: Duration, whole: Duration) -> Times {
        let now_ms = self.shared.clock.now_ms();
        let until = |left: Duration| now_ms + left.as_millis() as u64;
        let memory = jitter(self.options.l1_ttl).min(fresh);
        Times { memory_ms: until(memory), fresh_ms: until(fresh), expires_ms: until(whole), load_ms: 0 }
    }

    /// How long nobody tries again after a failure.
    fn hold(&self) -> Duration {
        if self.flight.has_old() { self.options.fail_throttle } else { self.options.error_hold }
    }

    fn seal(&self, loaded: &Encoded, seen: &Seen, grant: Grant, (ttl, grace): (Duration, Duration)) -> Option<Vec<u8>> {
        let fresh_us = self.shared.clock.redis_now_us()? + ttl.as_micros() as u64;
        let head = Head {
            epoch: grant.epoch,
            version: grant.token,
            fresh_us,
            expires_us: fresh_us + grace.as_micros() as u64,
            load_us: u32::try_from(loaded.took.as_micros()).unwrap_or(u32::MAX),
        };
        let payload = match &loaded.payload {
            Payload::Value(bytes) => Some(bytes.as_slice()),
            Payload::Absent => None,
            Payload::Unstorable => return None,
        };
        let tags: Vec<Tag<'_>> = loaded.tags.iter().map(|name| seen.marks.tag(name)).collect();
        Some(envelope::seal(self.namespace.schema, &head, &tags, payload))
    }

    fn ttl(&self, loaded: &Encoded) -> Duration {
        loaded.ttl.unwrap_or(match loaded.payload {
            Payload::Absent => self.options.negative_ttl,
            Payload::Value(_) | Payload::Unstorable => self.options.ttl,
        })
    }

    /// Ends the load; a failure answers for those who come later for `hold`.
    fn land(&self, outcome: Result<Arrival, LoadError>, hold: Duration) {
        let now_ms = self.shared.clock.now_ms();
        let flight = &self.flight;
        match outcome {
            Ok(arrival) => {
                let entry = arrival.kept.map(|(stamp, trust)| Entry {
                    value: arrival.landed.value.clone(),
                    times: arrival.landed.times,
                    version: arrival.landed.version,
                    stamp,
                    tags: arrival.landed.tags.clone(),
                    trust,
                    value_bytes: arrival.value_bytes as u32,
                });
                self.shared.flights.land(flight, Ok(arrival.landed), now_ms, || self.keep(entry, now_ms));
            }
            Err(error) => {
                let held_until_ms = now_ms + hold.as_millis() as u64;
                self.shared.flights.land(flight, Err(error), held_until_ms, || {});
            }
        }
    }

    fn keep(&self, entry: Option<Entry>, now_ms: u64) {
        let Some(entry) = entry.filter(|entry| now_ms < entry.times.expires_ms) else {
            return;
        };
        if self.shared.are_valid(entry.tags.as_deref()) && self.lane().allows(self.flight.hash, entry.stamp) {
            self.shared.l1.insert(self.flight.key.clone(), entry);
        } else {
            self.namespace.metrics.rejected_by_floor.inc();
        }
    }

    /// To be called before a value is read or loaded.
    fn seen(&self) -> Seen {
        Seen { stamp: self.lane().stamp(self.flight.hash), marks: Marks::of(&self.shared.tags) }
    }

    fn lane(&self) -> &Lane {
        self.namespace.lane(self.flight.hash.lane())
    }

    fn address(&self) -> LaneAddress<'_> {
        self.namespace.address(self.flight.hash.lane())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // After a regular end this changes nothing; otherwise nobody may be left waiting.
        if !self.flight.has_landed() {
            let now_ms = self.shared.clock.now_ms();
            self.shared.flights.land(&self.flight, Err(LoadError::Abandoned), now_ms, || {});
        }
    }
}

impl Payload {
    fn len(&self) -> usize {
        match self {
            Self::Value(bytes) => bytes.len(),
            Self::Absent | Self::Unstorable => 0,
        }
    }
}

/// Who vouches for the epoch of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// Nobody: it came from a plain read.
    Unsure,
    /// The lease script, which compared it.
    Told,
}

/// Spreads expiries by ± 10 %, so that what was stored together is not loaded again together.
fn jitter(ttl: Duration) -> Duration {
    ttl.min(LONGEST).mul_f64(0.9 + 0.2 * fastrand::f64())
}
