//! The task that sends what waits, one call at a time.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use redis_store::{Error, RedisStore};
use tokio::sync::Notify;

use crate::{
    decision::Decision,
    metrics::{Call, Metrics, Script},
    policies::Policies,
    script::{Answer, Calls},
    state::held::{Held, Units},
    state::leases::SPREAD,
    state::queue::Batch,
    state::{Outcome, State, Violation},
};

/// What the limiter and its tasks share.
pub(crate) struct Shared {
    pub(crate) policies: Policies,
    pub(crate) calls: Calls,
    pub(crate) store: RedisStore,
    pub(crate) metrics: Metrics,
    pub(crate) state: Mutex<State>,
    /// One for each queue.
    pub(crate) wake: Vec<Notify>,
    /// That there is something to settle.
    pub(crate) settle: Notify,
    /// Whoever settles.
    pub(crate) clerk: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the batches of one queue for ever. Whatever comes in while a call is out goes with the next.
    pub(crate) async fn flush_for_ever(self: &Arc<Self>, queue: usize) {
        loop {
            let batch = self.state().queues[queue].pop();
            match batch {
                Some(batch) => {
                    self.flush(batch, queue).await;
                    // Those who were just let through go on first, and what they make ready joins the next call.
                    tokio::task::yield_now().await;
                }
                None => self.wake[queue].notified().await,
            }
        }
    }

    async fn flush(self: &Arc<Self>, mut batch: Batch, queue: usize) {
        let sent = Instant::now();
        if !self.prepare(&mut batch, sent) {
            return self.answer_locally(batch, false);
        }
        let (script, keys, arguments) = self.calls.check(&batch, &self.policies);
        let reply = self.store.run(script, &keys, &arguments).await;
        let answer = reply.and_then(|reply| {
            Answer::parse(reply, &batch.groups).ok_or(Error::Unexpected { expected: "the script's numbers" })
        });
        self.metrics.called(Script::Check, Call::from(&answer));
        match answer {
            Ok(answer) => {
                let (outcomes, violations, is_holding, has_stepped) = {
                    let mut state = self.state();
                    let outcomes = state.learn(&self.policies, &batch.groups, answer, sent);
                    state.succeeded(&self.policies, Instant::now());
                    let violations = std::mem::take(&mut state.violations);
                    (outcomes, violations, state.has_to_settle(), state.clock.take_step())
                };
                if has_stepped {
                    self.metrics.clock_stepped();
                    tracing::warn!("Redis's clock was set: windows begin and end by it");
                }
                self.deliver(batch, &outcomes);
                violations.iter().for_each(|violation| self.report(violation));
                if is_holding {
                    self.settle.notify_one();
                }
            }
            Err(error) => {
                tracing::debug!(error = %error, "a limit was checked without redis");
                self.state().failed(Instant::now());
                self.answer_locally(batch, matches!(error, Error::Indeterminate));
                self.answer_queue_locally(queue);
            }
        }
    }

    /// Whether Redis may be asked; then the batch says how much is wanted ahead, and how units at the same time are named.
    fn prepare(&self, batch: &mut Batch, now: Instant) -> bool {
        let mut state = self.state();
        if !state.may_ask(now) {
            return false;
        }
        let now_us = state.clock.monotonic_us(now);
        batch.spread = SPREAD * state.workers();
        for group in &mut batch.groups {
            if group.request.leased {
                group.wanted = state.leases.wanted(&group.request, group.waiting, now_us);
            }
            for part in &group.request.parts {
                let rule = self.policies.rule(part.rule);
                if rule.is_concurrency() {
                    let units = rule.units(group.request.cost) * u64::from(group.waiting);
                    group.sequences.push(state.holdings.number(units));
                }
            }
        }
        true
    }

    /// Those who came while a call failed must not wait for the next one to fail too.
    fn answer_queue_locally(self: &Arc<Self>, queue: usize) {
        loop {
            let batch = self.state().queues[queue].pop();
            match batch {
                Some(batch) => self.answer_locally(batch, false),
                None => return,
            }
        }
    }

    fn answer_locally(self: &Arc<Self>, batch: Batch, may_be_counted: bool) {
        let now = Instant::now();
        let decisions: Vec<(Decision, Units)> = {
            let mut state = self.state();
            let decide = |group: u32| {
                let group = &batch.groups[group as usize];
                state.decide_locally(&self.policies, &group.request, now, may_be_counted)
            };
            batch.waiters.iter().map(|waiter| waiter.group).map(decide).collect()
        };
        for (waiter, (decision, units)) in batch.waiters.into_iter().zip(decisions) {
            // Whoever no longer waits needs no answer.
            let _ = waiter.answer.send(self.holding(decision, units));
        }
    }

    /// Lets the first ones of each group through, as many as Redis admitted.
    fn deliver(self: &Arc<Self>, batch: Batch, outcomes: &[Outcome]) {
        let mut places = vec![0_u32; outcomes.len()];
        for waiter in batch.waiters {
            let group = waiter.group as usize;
            let (outcome, place) = (&outcomes[group], places[group]);
            places[group] += 1;
            let units = if place < outcome.admitted { outcome.units(place) } else { Units::new() };
            let _ = waiter.answer.send(self.holding(outcome.decision(place), units));
        }
    }

    /// The decision, which gives `units` back when it is dropped.
    pub(crate) fn holding(self: &Arc<Self>, mut decision: Decision, units: Units) -> Decision {
        if !units.is_empty() {
            decision.held.push(Arc::new(Held { shared: Arc::clone(self), units }));
        }
        decision
    }

    pub(crate) fn report(&self, violation: &Violation) {
        let policy = self.policies.name(violation.policy);
        if let Some(suppressed) = self.metrics.may_log(Instant::now()) {
            let digits = violation.identity.digits();
            let identity = String::from_utf8_lossy(&digits);
            let (limit, shadow) = (violation.limit, violation.shadow);
            let retry_after_seconds = violation.wait_us.map(|wait| wait as f64 / 1e6);
            tracing::info!(policy, %identity, limit, shadow, retry_after_seconds, suppressed, "Limit reached");
        }
    }
}
