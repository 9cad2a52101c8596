//! The task that tells Redis afterwards: refunds, charges, unspent grants, and units at the same time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use redis_store::Reply;
use tokio::time::timeout;

use crate::{
    flusher::Shared,
    identity::LANES,
    metrics::{Call, Script},
    request::Part,
    state::bounded::Slot,
    state::held::{Sequence, Units},
    state::settlement::Settlement,
};

/// How often it looks for grants that are overdue.
const TURN: Duration = Duration::from_millis(100);

/// How often units at the same time are held on to. They end by themselves after their policy's window.
const RENEWAL: Duration = Duration::from_secs(1);

/// Counters in one call.
const MAX_COUNTERS: usize = 500;

impl Shared {
    /// Settles for ever: at once what has been added, the rest in its time.
    pub(crate) async fn settle_for_ever(&self) {
        let mut renewed = Instant::now();
        loop {
            let renew = renewed.elapsed() >= RENEWAL;
            if renew {
                renewed = Instant::now();
            }
            let again = self.settle_once(renew).await;
            if again {
                let _ = timeout(TURN, self.settle.notified()).await;
            } else {
                self.settle.notified().await;
            }
        }
    }

    /// Tells what there is to tell, and whether there will be more without a word.
    pub(crate) async fn settle_once(&self, renew: bool) -> bool {
        // What another has taken has been told when this returns.
        let _clerk = self.clerk.lock().await;
        let (changes, releases, renewals, again) = {
            let mut state = self.state();
            let now_us = state.clock.monotonic_us(Instant::now());
            let overdue = state.leases.overdue(now_us);
            state.settlements.give_back(&self.policies, overdue);
            let renewals = if renew { state.holdings.all() } else { Vec::new() };
            let (changes, releases) = state.settlements.take();
            (changes, releases, renewals, state.has_to_settle())
        };
        for changes in self.in_calls(changes, |change| change.part) {
            self.change(&changes).await;
        }
        for releases in self.in_calls(releases, |(part, _)| *part) {
            self.hold(&releases, false).await;
        }
        for renewals in self.in_calls(renewals, |(part, _)| *part) {
            self.hold(&renewals, true).await;
        }
        again
    }

    /// Gives back what is granted to this worker and held by nobody, now.
    pub(crate) fn give_back_grants(&self) {
        let mut state = self.state();
        let unspent = state.leases.take(|_| true);
        state.settlements.give_back(&self.policies, unspent);
    }

    /// Units at the same time that are over.
    pub(crate) fn give_back(&self, units: &Units) {
        let mut state = self.state();
        for &(part, first, count) in units {
            let slot = Slot { identity: part.identity, policy: self.policies.rule(part.rule).policy };
            state.holdings.remove(&slot, first, count);
            state.settlements.release(part, (first..first + u64::from(count)).collect());
        }
        drop(state);
        self.settle.notify_one();
    }

    async fn change(&self, changes: &[Settlement]) {
        let (script, keys, arguments) = self.calls.settle(changes);
        let reply = self.store.run(script, &keys, &arguments).await;
        self.settled(Script::Settle, reply);
    }

    async fn hold(&self, units: &[(Part, Vec<Sequence>)], renew: bool) {
        let (script, keys, arguments) = self.calls.hold(units, renew, &self.policies);
        let reply = self.store.run(script, &keys, &arguments).await;
        self.settled(Script::Hold, reply);
    }

    /// Whatever is lost was counted too often, or ends by itself.
    fn settled(&self, script: Script, reply: Result<Reply, redis_store::Error>) {
        self.metrics.called(script, Call::from(&reply));
        if let Err(error) = reply {
            tracing::debug!(%error, ?script, "Redis was not told what to settle");
        }
    }

    /// Cuts a list into what goes with one call; on a cluster all of that is of one lane.
    fn in_calls<T>(&self, all: Vec<T>, part: impl Fn(&T) -> Part) -> Vec<Vec<T>> {
        let mut lanes: HashMap<usize, Vec<Vec<T>>> = HashMap::new();
        let is_cluster = self.wake.len() == LANES;
        for one in all {
            let lane = if is_cluster { part(&one).identity.lane() } else { 0 };
            let calls = lanes.entry(lane).or_default();
            match calls.last_mut() {
                Some(call) if call.len() < MAX_COUNTERS => call.push(one),
                _ => calls.push(vec![one]),
            }
        }
        lanes.into_values().flatten().collect()
    }
}
