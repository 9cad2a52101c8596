//! The limiter as a program uses it.

use std::{
    sync::Arc,
    sync::Mutex,
    time::{Duration, Instant},
};

use redis_store::RedisStore;
use smallvec::SmallVec;
use telemetry::Registry;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::{
    config::{Config, Count, Error, Share},
    decision::{Decision, PolicyState, Source, Verdict},
    flusher::Shared,
    identity::LANES,
    metrics::Metrics,
    policies::{Policies, PolicySet},
    request::Request,
    script::Calls,
    state::State,
    state::settlement::Settlement,
    subject::Subject,
};

/// How long the end of a worker may wait until what was granted to it has been given back.
const FAREWELL: Duration = Duration::from_millis(200);

/// Checks requests against the policies. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct Limiter {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Limiter {
    /// Makes a limiter. Must be called inside a tokio runtime, on which its calls to Redis are made.
    pub fn new(config: &Config, store: &RedisStore, registry: &Registry) -> Result<Self, Error> {
        let Share { index, workers } = config.share;
        if index >= workers {
            return Err(Error::Share { index, workers });
        }
        let policies = Policies::new(config)?;
        // On a cluster one call for each lane, otherwise one for all.
        let queues = if store.is_cluster() { LANES } else { 1 };
        let shared = Arc::new(Shared {
            calls: Calls::new(&config.prefix, &policies),
            store: store.with_timeout(config.timeout),
            metrics: Metrics::new(registry, &policies),
            state: Mutex::new(State::new(queues, config.share)),
            wake: std::iter::repeat_with(Notify::new).take(queues).collect(),
            settle: Notify::new(),
            clerk: tokio::sync::Mutex::new(()),
            policies,
        });
        let mut tasks = JoinSet::new();
        for queue in 0..queues {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move { shared.flush_for_ever(queue).await });
        }
        let clerk = Arc::clone(&shared);
        tasks.spawn(async move { clerk.settle_for_ever().await });
        if !shared.policies.all().is_empty() {
            let listener = Arc::clone(&shared);
            tasks.spawn(async move { listener.listen_for_ever().await });
        }
        Ok(Self { inner: Arc::new(Inner { shared, _tasks: tasks }) })
    }

    /// The policies, for headers.
    pub fn policies(&self) -> &Policies {
        &self.inner.shared.policies
    }

    /// A request of `subject` under the policies of `set`.
    pub fn request(&self, set: PolicySet, subject: &Subject<'_>) -> Request {
        self.policies().request(set, subject)
    }

    /// Gives this worker another part of each limit, for when Redis is away. The parts add up to the limits when all
    /// workers agree how many they are, and each has a number of its own.
    pub fn divide(&self, share: Share) {
        self.inner.shared.state().divide(share);
    }

    /// Whether decisions come from Redis, as opposed to this worker alone.
    pub fn is_exact(&self) -> bool {
        let shared = &self.inner.shared;
        shared.store.is_connected() && !shared.state().decides_locally(Instant::now())
    }

    /// Decides what needs no waiting: no policy, a denial that is remembered, a request granted ahead, or Redis known to be
    /// away. `None` means that [`Limiter::check`] must be asked.
    pub fn try_check(&self, request: &Request) -> Option<Decision> {
        if request.is_unlimited() {
            return Some(Decision::unlimited());
        }
        let decision = self.decide_at_once(request)?;
        self.inner.shared.metrics.decided(&decision);
        Some(decision)
    }

    /// Decides on a request. It waits for Redis no longer than the configured timeout.
    ///
    /// Dropping the future gives nothing back but units at the same time: the request counts as soon as it has been sent.
    pub async fn check(&self, request: &Request) -> Decision {
        if let Some(decision) = self.try_check(request) {
            return decision;
        }
        let is_split = self.inner.shared.wake.len() > 1 && request.lane().is_none();
        let decision = if is_split { self.check_lanes(request).await } else { self.wait(request).await };
        self.inner.shared.metrics.decided(&decision);
        decision
    }

    /// Tells how a request was answered: policies that count only the other kind of answer give it back, and the others count
    /// `charged` units more, also beyond the limit.
    pub fn answered(&self, decision: &Decision, succeeded: bool, charged: u32) {
        let is_counted = |state: &PolicyState| match self.policies().get(state.policy).count {
            Count::All => true,
            Count::Success => succeeded,
            Count::Failure => !succeeded,
        };
        self.give_back(decision, |state| !is_counted(state));
        if charged > 0 {
            self.charge_those(decision, charged, is_counted);
        }
    }

    /// Gives back what a request was counted for, in the window it was counted in.
    pub fn refund(&self, decision: &Decision) {
        self.give_back(decision, |_| true);
    }

    /// Counts so many units more under each policy, also beyond the limit.
    pub fn charge(&self, decision: &Decision, units: u32) {
        self.charge_those(decision, units, |_| true);
    }

    fn charge_those(&self, decision: &Decision, units: u32, which: impl Fn(&PolicyState) -> bool) {
        let shared = &self.inner.shared;
        let mut state = shared.state();
        for known in decision.states.iter().filter(|known| known.units > 0 && which(known)) {
            let units = shared.policies.rule(known.part.rule).units(units);
            let is_local = decision.source == Source::Local;
            state.count(&shared.policies, known.part, units, is_local, Instant::now());
            if !is_local {
                let counted_us = known.counted_us;
                let is_kept = state.settlements.push(Settlement { part: known.part, units: units as i64, counted_us });
                shared.metrics.settlement(is_kept);
            }
        }
        drop(state);
        shared.settle.notify_one();
    }

    /// Tells Redis all that there is to tell, and gives back what is granted ahead, at the end of a drain: at most 200 ms.
    pub async fn close(&self) {
        let shared = &self.inner.shared;
        shared.give_back_grants();
        let _ = timeout(FAREWELL, shared.settle_once(false)).await;
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// As if its process had been killed.
    #[cfg(test)]
    pub(crate) fn abandon(mut self) {
        Arc::get_mut(&mut self.inner).expect("it is the only clone")._tasks.abort_all();
        std::mem::forget(self);
    }

    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.inner.shared.state().remembered_count()
    }

    fn decide_at_once(&self, request: &Request) -> Option<Decision> {
        let (shared, now) = (&self.inner.shared, Instant::now());
        let mut state = shared.state();
        if let Some(decision) = state.remembered(&shared.policies, request, now) {
            let violations = std::mem::take(&mut state.violations);
            drop(state);
            violations.iter().for_each(|violation| shared.report(violation));
            return Some(decision);
        }
        if shared.store.is_connected() && !state.decides_locally(now) {
            return None;
        }
        let (decision, units) = state.decide_locally(&shared.policies, request, now, false);
        drop(state);
        Some(shared.holding(decision, units))
    }

    fn enqueue(&self, request: &Request) -> oneshot::Receiver<Decision> {
        let shared = &self.inner.shared;
        let queue = request.lane().unwrap_or(0) % shared.wake.len();
        let (answer, receiver) = oneshot::channel();
        let is_first = shared.state().queues[queue].push(request, answer);
        if is_first {
            shared.wake[queue].notify_one();
        }
        receiver
    }

    async fn wait(&self, request: &Request) -> Decision {
        self.answer(request, self.enqueue(request)).await
    }

    async fn answer(&self, request: &Request, answer: oneshot::Receiver<Decision>) -> Decision {
        if let Ok(decision) = answer.await {
            return decision;
        }
        // Only a runtime that is shutting down drops the flusher, and with it the question.
        let shared = &self.inner.shared;
        let (decision, units) = shared.state().decide_locally(&shared.policies, request, Instant::now(), true);
        shared.holding(decision, units)
    }

    /// Asks about identities whose counters are on different nodes of a cluster, all at once. Nothing there decides about
    /// all together, so what one admits and another denies is given back.
    async fn check_lanes(&self, request: &Request) -> Decision {
        let lanes = request.by_lane();
        let answers: SmallVec<[_; 2]> = lanes.iter().map(|request| (request, self.enqueue(request))).collect();
        let mut decisions: SmallVec<[Decision; 2]> = SmallVec::new();
        for (request, answer) in answers {
            decisions.push(self.answer(request, answer).await);
        }
        let together = together(&decisions);
        if !together.is_allowed() {
            decisions.iter().filter(|decision| decision.is_allowed()).for_each(|decision| self.refund(decision));
        }
        together
    }

    fn give_back(&self, decision: &Decision, which: impl Fn(&PolicyState) -> bool) {
        if decision.verdict != Verdict::Allowed {
            return;
        }
        let is_meant = |known: &&PolicyState| known.units > 0 && which(known);
        if !decision.states.iter().any(|known| is_meant(&known)) {
            return;
        }
        let shared = &self.inner.shared;
        let mut state = shared.state();
        let mut is_told = false;
        for known in decision.states.iter().filter(is_meant) {
            let rule = shared.policies.rule(known.part.rule);
            if rule.is_concurrency() {
                continue;
            }
            let is_local = decision.source == Source::Local;
            state.uncount(&shared.policies, known, is_local);
            if !is_local {
                let units = -(known.units as i64);
                let settlement = Settlement { part: known.part, units, counted_us: known.counted_us };
                shared.metrics.settlement(state.settlements.push(settlement));
                is_told = true;
            }
        }
        drop(state);
        if is_told {
            shared.settle.notify_one();
        }
    }
}

/// One decision out of several: allowed if all are.
fn together(decisions: &[Decision]) -> Decision {
    let rank = |verdict| match verdict {
        Verdict::Allowed => 0,
        Verdict::Unavailable => 1,
        Verdict::Denied => 2,
    };
    let verdict = decisions.iter().map(Decision::verdict).max_by_key(|verdict| rank(*verdict));
    let is_local = decisions.iter().any(|decision| decision.source == Source::Local);
    let source = if is_local { Source::Local } else { Source::Redis };
    let mut together = Decision::new(verdict.unwrap_or(Verdict::Allowed), source, Default::default());
    for decision in decisions {
        together.states.extend(decision.states.iter().copied());
        together.delay = together.delay.max(decision.delay);
        together.held.extend(decision.held.iter().cloned());
    }
    if verdict != Some(Verdict::Allowed) {
        together.held.clear();
    }
    together
}
