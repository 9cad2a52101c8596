//! What all handles and tasks of one cache share, and the one place where an invalidation takes effect.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use redis_store::{Error, RedisStore};
use telemetry::Registry;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    clock::Clock,
    coherence::lane::Lane,
    coherence::message,
    coherence::pending::Pending,
    config::Config,
    flight::Flights,
    keys::{KeyHash, LANES, LaneKeys},
    l1::{EntryKey, L1},
    l2::{Group, L2, LaneAddress},
    load::slots::Slots,
    metrics::{Metrics, NamespaceMetrics},
    tags,
};

/// A script must not keep Redis from answering others for long.
pub(crate) const KEYS_PER_CALL: usize = 256;

/// A look takes one round trip; a Redis that is slower than this is as good as away.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// A namespace at work.
pub(crate) struct NamespaceState {
    pub(crate) id: u32,
    pub(crate) name: &'static str,
    pub(crate) schema: u32,
    pub(crate) channel: String,
    pub(crate) metrics: NamespaceMetrics,
    /// Makes the namespace's type out of a payload.
    pub(crate) decode: fn(&[u8]) -> Option<Arc<dyn Any + Send + Sync>>,
    pub(crate) slots: Slots,
    lanes: Vec<(Lane, LaneKeys)>,
}

impl NamespaceState {
    fn new(
        id: u32,
        config: &Config,
        registry: &Registry,
        (name, schema): (&'static str, u32),
        decode: fn(&[u8]) -> Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        Self {
            id,
            name,
            schema,
            channel: crate::keys::channel(&config.prefix, name),
            metrics: NamespaceMetrics::new(registry, name),
            decode,
            slots: Slots::new(config.most_loads, config.most_waiting_loads),
            lanes: (0..LANES).map(|lane| (Lane::new(), LaneKeys::new(&config.prefix, name, lane))).collect(),
        }
    }

    pub(crate) fn lane(&self, number: usize) -> &Lane {
        &self.lanes[number].0
    }

    pub(crate) fn address(&self, lane: usize) -> LaneAddress<'_> {
        LaneAddress { keys: &self.lanes[lane].1, channel: &self.channel, lane }
    }
}

/// The heart of a cache.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Arc<Clock>,
    pub(crate) l1: L1,
    pub(crate) l2: L2,
    pub(crate) flights: Flights,
    pub(crate) pending: Pending,
    pub(crate) metrics: Metrics,
    /// That of the tags, which is also the first of all.
    pub(crate) tags: Arc<NamespaceState>,
    /// By id. The subscriber follows it.
    pub(crate) namespaces: watch::Sender<Vec<Arc<NamespaceState>>>,
    /// Asks the watchdog to look at the lanes now.
    pub(crate) look_now: Notify,
    /// Asks the subscriber to start over.
    pub(crate) resubscribe: Notify,
    /// Of how many namespaces the watchdog has tried to look at the lanes: before that nobody knows where they stand.
    pub(crate) looked_at: watch::Sender<usize>,
    /// Whether the subscription believes that it hears everything.
    pub(crate) is_subscribed: AtomicBool,
}

impl Shared {
    pub(crate) fn new(config: Config, store: RedisStore, registry: &Registry) -> Self {
        let clock = Arc::new(Clock::new());
        // A tag is no value, so there is nothing to decode.
        let tags = Arc::new(NamespaceState::new(tags::NAMESPACE_ID, &config, registry, (tags::NAMESPACE, 0), |_| None));
        Self {
            namespaces: watch::Sender::new(vec![Arc::clone(&tags)]),
            tags,
            l1: L1::new(config.l1_bytes),
            l2: L2::new(store, Arc::clone(&clock), &config.prefix),
            clock,
            config,
            flights: Flights::default(),
            pending: Pending::default(),
            metrics: Metrics::new(registry),
            look_now: Notify::new(),
            resubscribe: Notify::new(),
            looked_at: watch::Sender::new(0),
            is_subscribed: AtomicBool::new(false),
        }
    }

    /// Adds a namespace.
    ///
    /// # Panics
    /// When its name is taken or is not made of lower-case letters, digits and dashes.
    pub(crate) fn add_namespace(
        &self,
        registry: &Registry,
        name: &'static str,
        schema: u32,
        decode: fn(&[u8]) -> Option<Arc<dyn Any + Send + Sync>>,
    ) -> Arc<NamespaceState> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(!name.is_empty() && name.bytes().all(is_plain), "{name:?} cannot name a cache namespace");
        let mut added = None;
        self.namespaces.send_modify(|namespaces| {
            assert!(namespaces.iter().all(|other| other.name != name), "the cache namespace {name:?} exists");
            let id = namespaces.len() as u32;
            let namespace = Arc::new(NamespaceState::new(id, &self.config, registry, (name, schema), decode));
            added = Some(Arc::clone(&namespace));
            namespaces.push(namespace);
        });
        self.look_now.notify_one();
        added.expect("send_modify ran the closure")
    }

    pub(crate) fn disconnected_ttl_ms(&self) -> u64 {
        self.config.disconnected_ttl.as_millis() as u64
    }

    pub(crate) fn namespace(&self, id: u32) -> Arc<NamespaceState> {
        Arc::clone(&self.namespaces.borrow()[id as usize])
    }

    /// Makes an invalidation with a known number take effect here: what was read before it is not valid any more, in
    /// memory or in flight. Doing it twice, early or late does no harm.
    pub(crate) fn apply(&self, namespace: &NamespaceState, key: &str, sequence: u64) {
        let hash = KeyHash::of(key);
        namespace.lane(hash.lane()).raise(hash, sequence);
        let key = EntryKey::new(namespace.id, key);
        self.flights.detach(&key, sequence);
        self.l1.remove_older(&key, sequence);
    }

    /// Waits for the first look at a namespace's lanes, if Redis is there: what is loaded before it would not be believed by anybody.
    pub(crate) async fn looked(&self, namespace: &NamespaceState) {
        let is_known = |looked_at: &usize| *looked_at > namespace.id as usize;
        if is_known(&self.looked_at.borrow()) || !self.l2.store().is_connected() || !self.l2.is_reachable() {
            return;
        }
        let _ = timeout(FIRST_LOOK, self.looked_at.subscribe().wait_for(is_known)).await;
    }

    /// Forgets a key of our own before Redis has numbered its invalidation (trap T6). What carries a tag is not known, so
    /// for a tag it does nothing.
    pub(crate) fn forget(&self, key: &EntryKey) {
        self.flights.detach(key, u64::MAX);
        self.l1.remove(key);
    }

    /// Makes an invalidation take effect here that Redis cannot number now: nothing of what was read of this key so far,
    /// or of any tag in the lane of this one, is answered with any more.
    pub(crate) fn outdate(&self, key: &EntryKey) {
        if key.namespace == self.tags.id {
            self.tags.lane(KeyHash::of(&key.key).lane()).outdate();
        } else {
            self.forget(key);
        }
    }

    /// Invalidates in Redis, for everybody, and applies the numbers here without waiting for the echo.
    pub(crate) async fn publish(&self, keys: &[EntryKey]) -> Result<(), Error> {
        for keys in keys.chunks(KEYS_PER_CALL) {
            self.publish_at_once(keys).await?;
        }
        Ok(())
    }

    async fn publish_at_once(&self, keys: &[EntryKey]) -> Result<(), Error> {
        let mut lanes: BTreeMap<(u32, usize), Vec<&str>> = BTreeMap::new();
        for key in keys {
            lanes.entry((key.namespace, KeyHash::of(&key.key).lane())).or_default().push(&key.key);
        }
        let namespaces = self.namespaces.borrow().clone();
        let mut groups = Vec::new();
        for (&(namespace, lane), keys) in &lanes {
            let address = namespaces[namespace as usize].address(lane);
            groups.extend(message::split(keys).map(|keys| (namespace, Group { address, keys: keys.to_vec() })));
        }
        let (owners, groups): (Vec<u32>, Vec<Group<'_>>) = groups.into_iter().unzip();
        let positions = self.l2.invalidate(&groups).await?;
        for ((owner, group), position) in owners.into_iter().zip(&groups).zip(positions) {
            let namespace = &namespaces[owner as usize];
            for key in &group.keys {
                self.apply(namespace, key, position.sequence);
            }
            if namespace.lane(group.address.lane).epoch() != Some(position.epoch) {
                self.look_now.notify_one();
            }
        }
        Ok(())
    }
}
