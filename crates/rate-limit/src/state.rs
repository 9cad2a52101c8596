//! What a worker remembers, and the decisions it makes from memory.

pub(crate) mod bounded;
pub(crate) mod clock;
pub(crate) mod denials;
pub(crate) mod held;
pub(crate) mod leases;
pub(crate) mod local;
pub(crate) mod owed;
pub(crate) mod queue;
pub(crate) mod settlement;

use std::time::{Duration, Instant};

use resilience::{Breaker, BreakerConfig, Permit};

use crate::{
    config::Share,
    decision::{Decision, PolicyState, Source, States, Verdict},
    identity::Identity,
    policies::Policies,
    request::{Part, Request},
    rule::{Rule, RuleAlgorithm},
    script::Answer,
    state::bounded::Slot,
    state::clock::Clock,
    state::denials::Denials,
    state::held::{Holdings, Units},
    state::leases::{Grant, Leases},
    state::local::Counters,
    state::owed::Owed,
    state::queue::{Group, Queue},
    state::settlement::Settlements,
};

/// Opens after five late or lost replies in a row. It never stays open for long: that bounds how soon Redis is asked
/// again after it has come back.
const BREAKER: BreakerConfig =
    BreakerConfig { failures: 5, open: Duration::from_millis(250), max_open: Duration::from_millis(400) };

/// Everything behind the limiter's lock.
pub(crate) struct State {
    pub(crate) queues: Vec<Queue>,
    pub(crate) leases: Leases,
    pub(crate) holdings: Holdings,
    pub(crate) settlements: Settlements,
    pub(crate) clock: Clock,
    denials: Denials,
    /// What this worker has admitted, by any rule.
    counters: Counters,
    owed: Owed,
    /// What is worth a line in the log and has not got it yet.
    pub(crate) violations: Vec<Violation>,
    breaker: Breaker,
    /// This worker's part of each limit without Redis.
    share: Share,
    /// Until then nothing is asked of Redis.
    local_until: Option<Instant>,
    /// Whether a call is out that finds out whether Redis is back; the others do not wait for it.
    probing: bool,
}

/// What Redis said about one group.
pub(crate) struct Outcome {
    pub(crate) admitted: u32,
    /// As it is after the last one admitted, what was granted ahead included.
    states: States,
    /// Units that may still be spent by this worker, in requests.
    granted: u32,
    /// The delay of the last one admitted, in microseconds; negative when its turn was earlier.
    last_delay_us: i64,
    /// How much sooner the turn of each earlier one is.
    step_us: u64,
    /// What each holds while it lasts, the first one's.
    units: Units,
}

/// The first denial of an identity until it can pass again.
pub(crate) struct Violation {
    pub(crate) policy: u8,
    pub(crate) identity: Identity,
    pub(crate) limit: u64,
    pub(crate) wait_us: Option<u64>,
    pub(crate) shadow: bool,
}

impl State {
    pub(crate) fn new(queues: usize, share: Share) -> Self {
        Self {
            queues: std::iter::repeat_with(Queue::default).take(queues).collect(),
            leases: Leases::new(),
            holdings: Holdings::default(),
            settlements: Settlements::default(),
            clock: Clock::new(),
            denials: Denials::new(),
            counters: Counters::new(),
            owed: Owed::new(),
            violations: Vec::new(),
            breaker: Breaker::new(BREAKER),
            share,
            local_until: None,
            probing: false,
        }
    }

    /// What is certain without asking Redis: a denial that is remembered, or a request granted ahead.
    pub(crate) fn remembered(&mut self, policies: &Policies, request: &Request, now: Instant) -> Option<Decision> {
        let now_us = self.clock.monotonic_us(now);
        self.remembered_denial(policies, request, now_us).or_else(|| self.spend(policies, request, now_us))
    }

    fn remembered_denial(&mut self, policies: &Policies, request: &Request, now_us: u64) -> Option<Decision> {
        let mut states = States::new();
        for part in &request.parts {
            let rule = policies.rule(part.rule);
            let slot = Slot { identity: part.identity, policy: rule.policy };
            let units = rule.units(request.cost);
            if let Some((passes_at_us, is_first)) = self.denials.meet(&slot, units, now_us) {
                let wait = passes_at_us - now_us;
                let never = passes_at_us == u64::MAX || rule.never_has(units);
                if is_first {
                    self.violations.push(Violation::new(rule, part.identity, (!never).then_some(wait)));
                }
                let reset = (!never).then(|| Duration::from_micros(wait));
                states.push(PolicyState { reset, violated: true, ..PolicyState::new(rule, *part, 0) });
            }
        }
        (!states.is_empty()).then(|| Decision::new(Verdict::Denied, Source::DenialCache, states))
    }

    fn spend(&mut self, policies: &Policies, request: &Request, now_us: u64) -> Option<Decision> {
        if !request.leased {
            return None;
        }
        let spent = self.leases.spend(request, now_us)?;
        let mut states = States::new();
        for (part, (left, more_at_us)) in request.parts.iter().zip(spent.left) {
            let rule = policies.rule(part.rule);
            let units = rule.units(request.cost);
            states.push(PolicyState {
                remaining: left + u64::from(spent.held) * units,
                reset: Some(Duration::from_micros(more_at_us.saturating_sub(now_us))),
                units,
                counted_us: spent.counted_us,
                ..PolicyState::new(rule, *part, 0)
            });
        }
        Some(Decision::new(Verdict::Allowed, Source::Lease, states))
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

    /// Reports that Redis answered: it is told what it has missed.
    pub(crate) fn succeeded(&mut self, policies: &Policies, now: Instant) {
        self.probing = false;
        self.local_until = None;
        self.breaker.success(now);
        if !self.owed.is_empty() {
            let now_us = self.clock.redis_us(now);
            for settlement in self.owed.settle(policies, now_us) {
                self.settlements.push(settlement);
            }
        }
    }

    /// Reports that Redis did not answer.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.probing = false;
        self.breaker.failure(now);
    }

    /// From now on this is this worker's part of each limit.
    pub(crate) fn divide(&mut self, share: Share) {
        self.share = share;
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> u32 {
        self.share.workers
    }

    /// Decides as the policies say for when Redis is away. Redis counts it when it is back, unless it may have counted it already.
    pub(crate) fn decide_locally(
        &mut self,
        policies: &Policies,
        request: &Request,
        now: Instant,
        may_be_counted: bool,
    ) -> (Decision, Units) {
        let now_us = self.clock.redis_us(now);
        let (decision, units) = self.counters.decide(policies, request, self.share, &mut self.holdings, now_us);
        if decision.is_allowed() && !may_be_counted {
            for state in &decision.states {
                self.owed.add(policies.rule(state.part.rule), state.part, state.units, now_us);
            }
        }
        (decision, units)
    }

    /// Takes Redis's answer about `groups`, which was asked for at `sent`.
    pub(crate) fn learn(
        &mut self,
        policies: &Policies,
        groups: &[Group],
        mut answer: Answer,
        sent: Instant,
    ) -> Vec<Outcome> {
        self.clock.set(answer.now_us, sent);
        groups.iter().map(|group| self.learn_of_group(policies, group, &mut answer, sent)).collect()
    }

    fn learn_of_group(&mut self, policies: &Policies, group: &Group, answer: &mut Answer, sent: Instant) -> Outcome {
        let (request, sent_us) = (&group.request, self.clock.monotonic_us(sent));
        let total = answer.next() as u64;
        let admitted = total.min(group.waiting.into()) as u32;
        let granted = (total - u64::from(admitted)) as u32;
        let mut outcome = Outcome {
            admitted,
            states: States::new(),
            granted,
            last_delay_us: i64::MIN,
            step_us: 0,
            units: Units::new(),
        };
        let mut sequences = group.sequences.iter();
        for part in &request.parts {
            let rule = policies.rule(part.rule);
            let slot = Slot { identity: part.identity, policy: rule.policy };
            let (left, wait) = (answer.next(), answer.next());
            let (units, remaining) = (rule.units(request.cost), left.max(0) as u64);
            let wait_us = u64::try_from(wait).ok();
            let paced = rule.algorithm == RuleAlgorithm::Pacing && total > 0;
            if paced {
                outcome.last_delay_us = outcome.last_delay_us.max(wait);
                outcome.step_us = outcome.step_us.max(rule.spacing_us(units));
            } else if remaining < units && !rule.is_concurrency() && !rule.shadow {
                let is_denied = admitted < group.waiting;
                if self.denials.remember(slot, units, sent_us, wait_us, is_denied) {
                    self.violations.push(Violation::new(rule, part.identity, wait_us));
                }
            }
            if rule.shadow && (left < 0 || total == 0 && remaining < units) {
                self.violations.push(Violation::new(rule, part.identity, wait_us));
            }
            if rule.is_concurrency()
                && let Some(&first) = sequences.next()
                && admitted > 0
            {
                outcome.units.push((*part, first, units as u32));
                self.holdings.add(slot, *part, first, admitted * units as u32);
            }
            if total > 0 {
                self.counters.count(rule, slot, total * units, answer.now_us);
            }
            outcome.states.push(PolicyState {
                remaining,
                reset: if paced { Some(Duration::ZERO) } else { wait_us.map(Duration::from_micros) },
                violated: if rule.shadow { left < 0 } else { remaining < units },
                units,
                counted_us: answer.now_us,
                shadowed: if rule.shadow { left.min(0).unsigned_abs() as u32 } else { 0 },
                ..PolicyState::new(rule, *part, 0)
            });
        }
        if granted > 0 {
            self.grant(policies, request, &outcome, sent_us, answer.now_us);
        }
        outcome
    }

    fn grant(&mut self, policies: &Policies, request: &Request, outcome: &Outcome, sent_us: u64, now_us: u64) {
        let lives =
            request.parts.iter().map(|part| policies.rule(part.rule).spendable_us(part.identity.seed(), now_us));
        let left = outcome.states.iter().map(|state| {
            let reset_us = state.reset.map_or(0, |reset| reset.as_micros() as u64);
            (state.remaining, sent_us + reset_us)
        });
        let grant = Grant {
            requests: outcome.granted,
            sent_us,
            window_us: lives.min().unwrap_or(0),
            counted_us: now_us,
            left: left.collect(),
        };
        let unspent = self.leases.grant(request, grant);
        self.settlements.give_back(policies, unspent);
    }

    /// Takes back what was counted locally.
    pub(crate) fn uncount(&mut self, policies: &Policies, state: &PolicyState, is_local: bool) {
        let rule = policies.rule(state.part.rule);
        if is_local {
            self.owed.take_back(rule, state.part, state.units);
        }
        let slot = Slot { identity: state.part.identity, policy: rule.policy };
        self.denials.forget(&slot);
        self.counters.uncount(rule, slot, state.units, state.counted_us);
    }

    /// Counts more locally.
    pub(crate) fn count(&mut self, policies: &Policies, part: Part, units: u64, is_local: bool, now: Instant) {
        let rule = policies.rule(part.rule);
        let slot = Slot { identity: part.identity, policy: rule.policy };
        let now_us = self.clock.redis_us(now);
        if is_local {
            self.owed.add(rule, part, units, now_us);
        }
        self.counters.count(rule, slot, units, now_us);
    }

    /// Forgets all that is known of an identity, because somebody changed it in Redis.
    pub(crate) fn forget(&mut self, policies: &Policies, identity: Identity) {
        for policy in policies.all().iter() {
            let slot = Slot { identity, policy };
            self.denials.forget(&slot);
            self.counters.forget(&slot);
            self.owed.forget(&slot);
        }
        // Not given back: what they were counted in is gone.
        self.leases.take(|parts| parts.iter().any(|part| part.identity == identity));
    }

    /// Whether there is something to tell Redis now or later.
    pub(crate) fn has_to_settle(&self) -> bool {
        self.leases.is_holding() || !self.holdings.is_empty() || !self.settlements.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn remembered_count(&self) -> usize {
        self.denials.len() + self.counters.len()
    }
}

impl Outcome {
    /// The decision about the `place`th of the group, from 0.
    pub(crate) fn decision(&self, place: u32) -> Decision {
        let mut states = self.states.clone();
        if place >= self.admitted {
            return Decision::new(Verdict::Denied, Source::Redis, states);
        }
        // What is left after this one; the later ones of the group come next.
        let later = u64::from(self.admitted - 1 - place);
        for state in &mut states {
            state.remaining += (later + u64::from(self.granted)) * state.units;
            state.violated = state.shadow && u64::from(state.shadowed) > later;
        }
        let delay_us = self.last_delay_us.saturating_sub((later * self.step_us) as i64).max(0);
        Decision {
            delay: Duration::from_micros(delay_us as u64),
            ..Decision::new(Verdict::Allowed, Source::Redis, states)
        }
    }

    /// What the `place`th of the group holds while it lasts.
    pub(crate) fn units(&self, place: u32) -> Units {
        let number = |(part, first, units): &(Part, u64, u32)| (*part, first + u64::from(place * units), *units);
        self.units.iter().map(number).collect()
    }
}

impl Violation {
    fn new(rule: &Rule, identity: Identity, wait_us: Option<u64>) -> Self {
        Self { policy: rule.policy, identity, limit: rule.limit, wait_us, shadow: rule.shadow }
    }
}

impl PolicyState {
    pub(crate) fn new(rule: &Rule, part: Part, remaining: u64) -> Self {
        Self {
            policy: rule.policy,
            limit: rule.limit,
            remaining,
            reset: Some(Duration::ZERO),
            violated: false,
            shadow: rule.shadow,
            part,
            units: 0,
            counted_us: 0,
            shadowed: 0,
        }
    }
}
