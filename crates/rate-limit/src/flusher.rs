//! The task that sends what waits, one call at a time.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use redis_store::{Error, RedisStore};
use tokio::sync::Notify;

use crate::{
    decision::{Decision, Source},
    metrics::{Call, Metrics},
    policies::Policies,
    queue::Batch,
    script::{Answer, CheckScript},
    state::{State, Verdict},
};

/// What the limiter and its flushers share.
pub(crate) struct Shared {
    pub(crate) policies: Policies,
    pub(crate) script: CheckScript,
    pub(crate) store: RedisStore,
    pub(crate) metrics: Metrics,
    pub(crate) state: Mutex<State>,
    /// One for each queue.
    pub(crate) wake: Vec<Notify>,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the batches of one queue for ever. Whatever comes in while a call is out goes with the next.
    pub(crate) async fn flush_for_ever(&self, queue: usize) {
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

    async fn flush(&self, batch: Batch, queue: usize) {
        let sent = Instant::now();
        if !self.state().may_ask(sent) {
            return self.answer_locally(batch);
        }
        let (keys, arguments) = (self.script.keys(&batch.groups), self.script.arguments(&batch.groups));
        let reply = self.store.run(&self.script.script, &keys, &arguments).await;
        let answer = reply.and_then(|reply| {
            Answer::parse(reply, &batch.groups).ok_or(Error::Unexpected { expected: "the script's numbers" })
        });
        match answer {
            Ok(answer) => {
                self.metrics.called(Call::Answered);
                let verdicts = {
                    let mut state = self.state();
                    state.succeeded(Instant::now());
                    state.learn(&self.policies, &batch.groups, answer, sent)
                };
                deliver(batch, verdicts);
            }
            Err(error) => {
                self.metrics.called(match error {
                    Error::Indeterminate => Call::Indeterminate,
                    _ => Call::Failed,
                });
                tracing::debug!(error = %error, "a limit was checked without redis");
                self.state().failed(Instant::now());
                self.answer_locally(batch);
                self.answer_queue_locally(queue);
            }
        }
    }

    /// Those who came while a call failed must not wait for the next one to fail too.
    fn answer_queue_locally(&self, queue: usize) {
        loop {
            let batch = self.state().queues[queue].pop();
            match batch {
                Some(batch) => self.answer_locally(batch),
                None => return,
            }
        }
    }

    fn answer_locally(&self, batch: Batch) {
        let now = Instant::now();
        let decisions: Vec<Decision> = {
            let mut state = self.state();
            let decide = |group: u32| {
                let group = &batch.groups[group as usize];
                state.decide_locally(&self.policies, group, now)
            };
            batch.waiters.iter().map(|waiter| waiter.group).map(decide).collect()
        };
        for (waiter, decision) in batch.waiters.into_iter().zip(decisions) {
            // Whoever no longer waits needs no answer.
            let _ = waiter.answer.send(decision);
        }
    }
}

/// Lets the first ones of each group through, as many as Redis admitted.
fn deliver(batch: Batch, mut verdicts: Vec<Verdict>) {
    for waiter in batch.waiters {
        let verdict = &mut verdicts[waiter.group as usize];
        let mut states = verdict.states.clone();
        let allowed = verdict.admitted > 0;
        if allowed {
            verdict.admitted -= 1;
            // What is left after this one; the later ones of the batch come next.
            states.iter_mut().for_each(|state| state.remaining += verdict.admitted);
        }
        let _ = waiter.answer.send(Decision::new(allowed, Source::Redis, states));
    }
}
