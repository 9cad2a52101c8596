//! The limiter as a program uses it.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use redis_store::RedisStore;
use telemetry::Registry;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
};

use crate::{
    config::{Config, Share},
    decision::Decision,
    error::Error,
    flusher::Shared,
    identity::{Identity, LANES},
    metrics::Metrics,
    policies::{Policies, PolicySet},
    queue::Group,
    script::CheckScript,
    state::State,
};

/// Checks requests against the policies. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct Limiter {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    key: [u8; 16],
    /// On a cluster one call for each lane, otherwise one for all.
    queues: usize,
    _flushers: JoinSet<()>,
}

impl Limiter {
    /// Makes a limiter. Must be called inside a tokio runtime, on which its calls to Redis are made.
    pub fn new(config: Config, store: &RedisStore, registry: &Registry) -> Result<Self, Error> {
        let Share { index, workers } = config.share;
        if index >= workers {
            return Err(Error::Share { index, workers });
        }
        let policies = Policies::new(&config.policies)?;
        let queues = if store.is_cluster() { LANES } else { 1 };
        let shared = Arc::new(Shared {
            script: CheckScript::new(&config.prefix, &policies),
            store: store.with_timeout(config.timeout),
            metrics: Metrics::new(registry, &policies),
            state: Mutex::new(State::new(queues, config.share)),
            wake: std::iter::repeat_with(Notify::new).take(queues).collect(),
            policies,
        });
        let mut flushers = JoinSet::new();
        for queue in 0..queues {
            let shared = Arc::clone(&shared);
            flushers.spawn(async move { shared.flush_for_ever(queue).await });
        }
        Ok(Self { inner: Arc::new(Inner { shared, key: config.key, queues, _flushers: flushers }) })
    }

    /// The policies, for headers.
    pub fn policies(&self) -> &Policies {
        &self.inner.shared.policies
    }

    /// The policies that apply to a request; see [`Policies::matching`].
    pub fn policies_for(&self, method: &str, path: &str) -> PolicySet {
        self.policies().matching(method, path)
    }

    /// Divides each limit among so many workers from now on, for when Redis is away. Does nothing in a worker whose number is none of
    /// theirs: it is about to end.
    pub fn divide_among(&self, workers: u32) {
        self.inner.shared.state().divide_among(workers);
    }

    /// Whether decisions come from Redis, as opposed to this worker's part of each limit.
    pub fn is_exact(&self) -> bool {
        let shared = &self.inner.shared;
        shared.store.is_connected() && !shared.state().decides_locally(Instant::now())
    }

    /// Decides what needs no waiting: no policy, a denial that is remembered, or Redis known to be away. `None` means
    /// that [`Limiter::check`] must be asked.
    pub fn try_check(&self, set: PolicySet, address: IpAddr) -> Option<Decision> {
        if set.is_empty() {
            return Some(Decision::unlimited());
        }
        let identity = Identity::of_address(address, &self.inner.key);
        let decision = self.decide_at_once(&mut self.inner.shared.state(), set, identity)?;
        self.inner.shared.metrics.decided(&decision);
        Some(decision)
    }

    /// Decides on one request of `address`. It waits for Redis no longer than the configured timeout.
    ///
    /// Dropping the future gives nothing back: the request counts as soon as it has been sent.
    pub async fn check(&self, set: PolicySet, address: IpAddr) -> Decision {
        if set.is_empty() {
            return Decision::unlimited();
        }
        let shared = &self.inner.shared;
        let identity = Identity::of_address(address, &self.inner.key);
        let decision = match self.decide_or_wait(set, identity) {
            Ok(decision) => decision,
            Err(answer) => match answer.await {
                Ok(decision) => decision,
                // Only a runtime that is shutting down drops the flusher, and with it the question.
                Err(_) => self.decide_locally(&mut shared.state(), set, identity, Instant::now()),
            },
        };
        shared.metrics.decided(&decision);
        decision
    }

    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.inner.shared.state().remembered()
    }

    fn decide_or_wait(&self, set: PolicySet, identity: Identity) -> Result<Decision, oneshot::Receiver<Decision>> {
        let shared = &self.inner.shared;
        let queue = identity.lane() % self.inner.queues;
        let mut state = shared.state();
        if let Some(decision) = self.decide_at_once(&mut state, set, identity) {
            return Ok(decision);
        }
        let (answer, receiver) = oneshot::channel();
        let is_first = state.queues[queue].push(identity, set, answer);
        drop(state);
        if is_first {
            shared.wake[queue].notify_one();
        }
        Err(receiver)
    }

    fn decide_at_once(&self, state: &mut State, set: PolicySet, identity: Identity) -> Option<Decision> {
        let (shared, now) = (&self.inner.shared, Instant::now());
        if let Some(denial) = state.remembered_denial(&shared.policies, set, identity, now) {
            return Some(denial);
        }
        if shared.store.is_connected() && !state.decides_locally(now) {
            return None;
        }
        Some(self.decide_locally(state, set, identity, now))
    }

    fn decide_locally(&self, state: &mut State, set: PolicySet, identity: Identity, now: Instant) -> Decision {
        let shared = &self.inner.shared;
        let group = Group { identity, set, waiting: 1 };
        state.decide_locally(&shared.policies, &group, now)
    }
}
