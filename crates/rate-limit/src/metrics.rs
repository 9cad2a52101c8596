//! Counters of decisions and of calls.

use telemetry::{Counter, Registry};

use crate::{
    decision::{Decision, Source},
    policies::Policies,
};

/// How a call to Redis ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Answered,
    /// Sent, and the reply lost or late.
    Indeterminate,
    /// Not sent, or refused.
    Failed,
}

/// Handles that are looked up once.
pub(crate) struct Metrics {
    /// By policy, then verdict, then source.
    decisions: Vec<[[Counter; SOURCES.len()]; 2]>,
    calls: [Counter; 3],
}

const SOURCES: [&str; 3] = ["redis", "denial_cache", "local"];

impl Metrics {
    pub(crate) fn new(registry: &Registry, policies: &Policies) -> Self {
        let decision = |policy: &str, verdict, source| {
            let labels = [("policy", policy), ("verdict", verdict), ("source", source)];
            registry.counter(
                "bellwether_ratelimit_decisions_total",
                "Requests let through under a policy, and requests denied because of it, by who decided.",
                &labels,
            )
        };
        let by_source = |policy: &str, verdict| SOURCES.map(|source| decision(policy, verdict, source));
        let by_verdict = |policy: &str| ["denied", "allowed"].map(|verdict| by_source(policy, verdict));
        let call = |result| {
            registry.counter(
                "bellwether_ratelimit_redis_calls_total",
                "Calls to Redis by how they ended; those that are indeterminate may have counted and are never repeated.",
                &[("result", result)],
            )
        };
        Self {
            decisions: policies.iter().map(|policy| by_verdict(&policy.name)).collect(),
            calls: ["answered", "indeterminate", "failed"].map(call),
        }
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let source = match decision.source() {
            Source::Redis => 0,
            Source::DenialCache => 1,
            Source::Local => 2,
            Source::None => return,
        };
        let allowed = decision.is_allowed();
        for state in decision.policies() {
            if allowed || state.remaining == 0 {
                self.decisions[usize::from(state.policy)][usize::from(allowed)][source].inc();
            }
        }
    }

    pub(crate) fn called(&self, call: Call) {
        self.calls[call as usize].inc();
    }
}
