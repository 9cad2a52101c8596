//! What a worker remembers, and the decisions it makes from memory.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use resilience::{Breaker, BreakerConfig, Permit};

use crate::{
    bounded::{Bounded, Slot},
    config::Share,
    decision::{Decision, PolicyState, Source, States},
    identity::Identity,
    local,
    policies::{Policies, PolicySet},
    queue::{Group, Queue},
    script::Answer,
    window::{Grid, Window},
};

/// Used-up counters that are remembered, and counters of this worker's own admissions: 4 to 5 MB each when full.
const REMEMBERED: usize = 65_536;

/// Opens after five late or lost replies in a row. It never stays open for long: that bounds how soon Redis is asked
/// again after it has come back.
const BREAKER: BreakerConfig =
    BreakerConfig { failures: 5, open: Duration::from_millis(250), max_open: Duration::from_millis(400) };

/// Everything behind the limiter's lock.
pub(crate) struct State {
    pub(crate) queues: Vec<Queue>,
    /// When a used-up counter begins anew, in microseconds of `Clock`.
    denials: Bounded<u64>,
    /// What this worker has admitted, by any rule.
    admitted: Bounded<Window>,
    clock: Clock,
    breaker: Breaker,
    /// This worker's part of each limit without Redis.
    share: Share,
    /// Until then nothing is asked of Redis.
    local_until: Option<Instant>,
    /// Whether a call is out that finds out whether Redis is back; the others do not wait for it.
    probing: bool,
}

/// What Redis said about one group.
pub(crate) struct Verdict {
    pub(crate) admitted: u64,
    /// As it is after the last one admitted.
    pub(crate) states: States,
}

/// Monotonic time, and what Redis's clock shows at the same moment. Until Redis has answered, this machine's clock
/// stands in: all workers of a host then agree where windows begin.
struct Clock {
    started: Instant,
    epoch_us: u64,
}

impl State {
    pub(crate) fn new(queues: usize, share: Share) -> Self {
        Self {
            queues: std::iter::repeat_with(Queue::default).take(queues).collect(),
            denials: Bounded::new(REMEMBERED),
            admitted: Bounded::new(REMEMBERED),
            clock: Clock::new(),
            breaker: Breaker::new(BREAKER),
            share,
            local_until: None,
            probing: false,
        }
    }

    /// The denial that is certain without asking Redis, if there is one.
    pub(crate) fn remembered_denial(
        &self,
        policies: &Policies,
        set: PolicySet,
        identity: Identity,
        now: Instant,
    ) -> Option<Decision> {
        let now_us = self.clock.monotonic_us(now);
        let mut states = States::new();
        for policy in set.iter() {
            if let Some(until) = self.denials.get(&Slot { identity, policy }).filter(|until| *until > now_us) {
                let limit = policies.get(policy).limit;
                let reset = Duration::from_micros(until - now_us);
                states.push(PolicyState { policy, limit, remaining: 0, reset });
            }
        }
        (!states.is_empty()).then(|| Decision::new(false, Source::DenialCache, states))
    }

    /// Whether requests are decided here instead of waiting for Redis.
    pub(crate) fn decides_locally(&self, now: Instant) -> bool {
        self.probing || self.local_until.is_some_and(|until| now < until)
    }

    /// Whether Redis may be asked now. The caller then reports `succeeded` or `failed`.
    pub(crate) fn may_ask(&mut self, now: Instant) -> bool {
        match self.breaker.permit(now) {
            Permit::Call => true,
            Permit::Probe => {
                self.probing = true;
                true
            }
            Permit::Refused { retry_in } => {
                self.local_until = Some(now + retry_in);
                false
            }
        }
    }

    /// Reports that Redis answered.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.probing = false;
        self.local_until = None;
        self.breaker.success(now);
    }

    /// Reports that Redis did not answer.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.probing = false;
        self.breaker.failure(now);
    }

    /// From now on there are so many workers. One that is none of them goes on as before: it is about to end.
    pub(crate) fn divide_among(&mut self, workers: u32) {
        if self.share.index < workers {
            self.share.workers = workers;
        }
    }

    /// Decides with this worker's part of each limit.
    pub(crate) fn decide_locally(&mut self, policies: &Policies, group: &Group, now: Instant) -> Decision {
        let now_us = self.clock.redis_us(now);
        let mut allowed = true;
        let mut states = States::new();
        for policy in group.set.iter() {
            let slot = Slot { identity: group.identity, policy };
            let compiled = policies.get(policy);
            let grid = Grid::new(group.identity.seed(), compiled.window_us);
            let window = grid.current(self.admitted.get(&slot), now_us);
            let remaining = local::quota(compiled.limit, &slot, self.share).saturating_sub(window.used);
            let reset = Duration::from_micros(grid.until_end(window.index, now_us));
            allowed &= remaining > 0;
            states.push(PolicyState { policy, limit: compiled.limit, remaining, reset });
        }
        if allowed {
            self.count(policies, group, 1, now_us);
            states.iter_mut().for_each(|state| state.remaining -= 1);
        }
        Decision::new(allowed, Source::Local, states)
    }

    /// Takes Redis's answer about `groups`, which was asked for at `sent`.
    pub(crate) fn learn(
        &mut self,
        policies: &Policies,
        groups: &[Group],
        mut answer: Answer,
        sent: Instant,
    ) -> Vec<Verdict> {
        self.clock.set(answer.now_us, sent);
        let sent_us = self.clock.monotonic_us(sent);
        let mut verdicts = Vec::with_capacity(groups.len());
        for group in groups {
            let admitted = answer.next();
            let mut states = States::new();
            for policy in group.set.iter() {
                let (remaining, reset_us) = (answer.next(), answer.next());
                if remaining == 0 {
                    // Redis looked at its clock after `sent`, so the window does not end before this.
                    self.denials.insert(Slot { identity: group.identity, policy }, sent_us + reset_us);
                }
                let reset = Duration::from_micros(reset_us);
                states.push(PolicyState { policy, limit: policies.get(policy).limit, remaining, reset });
            }
            if admitted > 0 {
                self.count(policies, group, admitted, answer.now_us);
            }
            verdicts.push(Verdict { admitted, states });
        }
        verdicts
    }

    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.denials.len() + self.admitted.len()
    }

    fn count(&mut self, policies: &Policies, group: &Group, admitted: u64, now_us: u64) {
        for policy in group.set.iter() {
            let slot = Slot { identity: group.identity, policy };
            let grid = Grid::new(group.identity.seed(), policies.get(policy).window_us);
            let window = grid.current(self.admitted.get(&slot), now_us);
            self.admitted.insert(slot, Window { used: window.used + admitted, ..window });
        }
    }
}

impl Clock {
    fn new() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), epoch_us: epoch.as_micros() as u64 }
    }

    fn monotonic_us(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_micros() as u64
    }

    fn redis_us(&self, now: Instant) -> u64 {
        self.epoch_us + self.monotonic_us(now)
    }

    fn set(&mut self, redis_us: u64, at: Instant) {
        self.epoch_us = redis_us.saturating_sub(self.monotonic_us(at));
    }
}
