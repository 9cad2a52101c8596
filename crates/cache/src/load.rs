//! One load from its start to its end: Redis, else the lease, else the loader; then Redis again and this worker's memory.

pub(crate) mod slots;

use std::{panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};

use futures_util::FutureExt;

use crate::{
    coherence::{
        lane::{Lane, Stamp},
        validity::{Trust, Validity},
    },
    config::{LONGEST, Options},
    envelope::{self, Head, Mismatch},
    error::LoadError,
    flight::{Flight, Landed, Untyped},
    freshness::Times,
    hit::Source,
    l1::Entry,
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
    is_kept: bool,
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
        let hold = outcome.as_ref().err().map_or(Duration::ZERO, |error| self.hold(error));
        self.land(outcome, hold);
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
                has_old: self.has_old(),
                lease: self.options.load_timeout.min(LONGEST) + LEASE_MARGIN,
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
        // In memory it takes what it took before it was compressed.
        let value_bytes = envelope.payload.as_deref().map_or(0, <[u8]>::len);
        let value = match envelope.payload {
            None => None,
            Some(payload) => Some((self.namespace.decode)(&payload).ok_or_else(|| {
                metrics.l2_mismatch.inc();
                envelope.head.version
            })?),
        };
        let times = self.times(&envelope.head, redis_now_us);
        let version = envelope.head.version;
        let validity = Validity { stamp: seen.stamp.with_version(version), tags, trust: Trust::Coordinated };
        let landed = Landed { value, source: Source::L2, times, version, validity };
        if envelope.head.fresh_us <= redis_now_us {
            metrics.l2_stale.inc();
            self.flight.offer(landed);
            return Err(version);
        }
        match landed.value {
            Some(_) => metrics.l2_hit.inc(),
            None => metrics.l2_negative.inc(),
        }
        Ok(Arrival { landed, is_kept: true, value_bytes })
    }

    async fn load_leased(&self, loading: Loading, grant: Grant, seen: Seen) -> Result<Arrival, LoadError> {
        let l2 = &self.shared.l2;
        let (address, key) = (self.address(), &*self.flight.key.key);
        let loaded = match self.load(loading).await {
            Ok(loaded) => loaded,
            Err(error) => {
                // What this worker has no room for another may have.
                let is_failure = !matches!(error, LoadError::Overloaded);
                let throttle = if is_failure { self.hold(&error) } else { Duration::ZERO };
                self.release(grant, throttle).await;
                return Err(error);
            }
        };
        let ttl = jitter(self.ttl(&loaded));
        // That there is no row is not worth being remembered for long.
        let grace = if let Payload::Absent = loaded.payload { Duration::ZERO } else { self.options.grace() };
        let value_bytes = loaded.payload.len();
        // A detached load was invalidated here: Redis may not know of it yet, and would take the fill.
        let head = self.head(&loaded, grant, ttl, grace);
        let sealed = head.and_then(|head| Some((head, seal(&head, &loaded, &seen, self.namespace.schema)?)));
        let (head, entry) = match sealed {
            Some(sealed) if !self.flight.is_detached() => sealed,
            _ => {
                self.release(grant, Duration::ZERO).await;
                return Ok(self.passed_on(loaded, &seen));
            }
        };
        let times = self.times(&head, head.fresh_us.saturating_sub(ttl.as_micros() as u64));
        match l2.fill(address, key, grant, entry, ttl + grace).await {
            Ok(true) => {
                let landed = Landed { version: grant.token, ..self.landed(loaded, &seen, times, Trust::Coordinated) };
                Ok(Arrival { landed, is_kept: true, value_bytes })
            }
            Ok(false) => {
                self.namespace.metrics.rejected_by_lease.inc();
                // Unless the lease is void or another's, whoever waits for it is not made to wait until it ends.
                self.release(grant, Duration::ZERO).await;
                Ok(self.passed_on(loaded, &seen))
            }
            Err(error) => {
                if !error.is_outage() {
                    self.release(grant, Duration::ZERO).await;
                }
                Ok(self.kept_alone(loaded, &seen))
            }
        }
    }

    /// Gives the lease back; after a failure nobody tries again for `throttle` who can make do with something old. Should this not
    /// arrive, the others wait until the lease ends.
    async fn release(&self, grant: Grant, throttle: Duration) {
        let hold = throttle.min(self.options.error_hold);
        let _ = self.shared.l2.release(self.address(), &self.flight.key.key, grant, (hold, throttle)).await;
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
        let result = tokio::time::timeout(self.options.load_timeout.min(LONGEST), in_turn).await;
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
            landed: self.landed(loaded, seen, Times::alone(self.shared.clock.now_ms(), ttl), Trust::Local),
            is_kept: true,
        }
    }

    /// Answers those who wait, and keeps nothing.
    fn passed_on(&self, loaded: Encoded, seen: &Seen) -> Arrival {
        let times = Times::alone(self.shared.clock.now_ms(), Duration::ZERO);
        Arrival { landed: self.landed(loaded, seen, times, Trust::Local), is_kept: false, value_bytes: 0 }
    }

    /// What our loader brought.
    fn landed(&self, loaded: Encoded, seen: &Seen, times: Times, trust: Trust) -> Landed {
        let validity = Validity { stamp: seen.stamp, tags: seen.marks.stamps(&loaded.tags), trust };
        Landed { value: loaded.value, source: Source::Loader, times, version: 0, validity }
    }

    /// The times of an entry in Redis, by this process's clock.
    fn times(&self, head: &Head, redis_now_us: u64) -> Times {
        let now_ms = self.shared.clock.now_ms();
        let at = |us: u64| match us.checked_sub(redis_now_us) {
            Some(left_us) => now_ms.saturating_add(left_us / 1000),
            None => now_ms.saturating_sub((redis_now_us - us).div_ceil(1000)),
        };
        let fresh_ms = at(head.fresh_us);
        let memory_ms = fresh_ms.min(now_ms + jitter(self.options.l1_ttl).as_millis() as u64);
        Times { memory_ms, fresh_ms, expires_ms: at(head.expires_us), load_ms: head.load_us.div_ceil(1000) }
    }

    /// How long nobody tries again after a failure.
    fn hold(&self, error: &LoadError) -> Duration {
        let is_throttled = self.has_old() && !matches!(error, LoadError::Overloaded);
        let hold = if is_throttled { self.options.fail_throttle } else { self.options.error_hold };
        hold.min(LONGEST)
    }

    /// Whether there is something old to make do with.
    fn has_old(&self) -> bool {
        let stands = |old: &Landed| {
            self.shared.may_stand_in(&self.namespace, self.flight.hash, old, self.options.stale_if_error)
        };
        self.flight.old().as_ref().is_some_and(stands)
    }

    /// What an entry says of itself, if Redis's time is known.
    fn head(&self, loaded: &Encoded, grant: Grant, ttl: Duration, grace: Duration) -> Option<Head> {
        let fresh_us = self.shared.clock.redis_now_us()? + ttl.as_micros() as u64;
        Some(Head {
            epoch: grant.epoch,
            version: grant.token,
            fresh_us,
            expires_us: fresh_us + grace.as_micros() as u64,
            load_us: u32::try_from(loaded.took.as_micros()).unwrap_or(u32::MAX),
        })
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
                let Arrival { landed, is_kept, value_bytes } = arrival;
                let entry = is_kept.then(|| Entry { landed: landed.clone(), value_bytes: value_bytes as u32 });
                self.shared.flights.land(flight, Ok(landed), now_ms, || self.keep(entry, now_ms));
            }
            Err(error) => {
                let held_until_ms = now_ms + hold.as_millis() as u64;
                self.shared.flights.land(flight, Err(error), held_until_ms, || {});
            }
        }
    }

    fn keep(&self, entry: Option<Entry>, now_ms: u64) {
        let Some(entry) = entry.filter(|entry| now_ms < entry.landed.times.expires_ms) else {
            return;
        };
        let validity = &entry.landed.validity;
        if self.shared.are_tags_valid(validity) && self.lane().allows(self.flight.hash, validity.stamp) {
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

/// An entry ready for Redis, unless it cannot be stored.
fn seal(head: &Head, loaded: &Encoded, seen: &Seen, schema: u32) -> Option<Vec<u8>> {
    let payload = match &loaded.payload {
        Payload::Value(bytes) => Some(bytes.as_slice()),
        Payload::Absent => None,
        Payload::Unstorable => return None,
    };
    let tags: Vec<Tag<'_>> = loaded.tags.iter().map(|name| seen.marks.tag(name)).collect();
    Some(envelope::seal(schema, head, &tags, payload))
}

/// Spreads expiries by ± 10 %, so that what was stored together is not loaded again together.
fn jitter(ttl: Duration) -> Duration {
    ttl.min(LONGEST).mul_f64(0.9 + 0.2 * fastrand::f64())
}
