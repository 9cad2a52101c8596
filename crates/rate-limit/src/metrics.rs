//! Counters of decisions and of calls.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use telemetry::{Counter, Registry};

use crate::{
    decision::{Decision, Source, Verdict},
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

/// What was called.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Script {
    Check,
    Settle,
    Hold,
    Control,
}

/// Handles that are looked up once.
pub(crate) struct Metrics {
    /// By policy, then verdict, then source.
    decisions: Vec<[[Counter; SOURCES.len()]; VERDICTS.len()]>,
    /// By policy.
    nearly: Vec<Counter>,
    calls: [[Counter; RESULTS.len()]; SCRIPTS.len()],
    /// Kept, and dropped because too many wait.
    settlements: [Counter; 2],
    clock_steps: Counter,
    log: Mutex<LogBudget>,
}

/// Lines about denied clients that may be written; an attack from many addresses must not fill the disk.
struct LogBudget {
    second: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

const VERDICTS: [&str; 4] = ["allowed", "denied", "unavailable", "shadow_denied"];
const SOURCES: [&str; 4] = ["redis", "lease", "denial_cache", "local"];
const SCRIPTS: [&str; 4] = ["check", "settle", "hold", "control"];
const RESULTS: [&str; 3] = ["answered", "indeterminate", "failed"];
const LINES_PER_SECOND: u32 = 10;

impl Metrics {
    pub(crate) fn new(registry: &Registry, policies: &Policies) -> Self {
        let decision = |policy: &str, verdict, source| {
            let labels = [("policy", policy), ("verdict", verdict), ("source", source)];
            registry.counter(
                "bellwether_ratelimit_decisions_total",
                "Requests by what a policy said of them and who decided; what it says in shadow mode denies nobody.",
                &labels,
            )
        };
        let by_source = |policy: &str, verdict| SOURCES.map(|source| decision(policy, verdict, source));
        let by_verdict = |policy: &str| VERDICTS.map(|verdict| by_source(policy, verdict));
        let nearly = |policy: &str| {
            let about = "Requests let through when a policy had less than a fifth of its limit left.";
            registry.counter("bellwether_ratelimit_near_limit_total", about, &[("policy", policy)])
        };
        let call = |script, result| {
            registry.counter(
                "bellwether_ratelimit_redis_calls_total",
                "Calls to Redis by how they ended; those that are indeterminate may have counted and are never repeated.",
                &[("script", script), ("result", result)],
            )
        };
        let settlement = |result| {
            let about = "Refunds and later charges, by whether there was room to remember them.";
            registry.counter("bellwether_ratelimit_settlements_total", about, &[("result", result)])
        };
        Self {
            decisions: policies.iter().map(|policy| by_verdict(&policy.name)).collect(),
            nearly: policies.iter().map(|policy| nearly(&policy.name)).collect(),
            calls: SCRIPTS.map(|script| RESULTS.map(|result| call(script, result))),
            settlements: ["kept", "dropped"].map(settlement),
            clock_steps: registry.counter(
                "bellwether_ratelimit_clock_steps_total",
                "How often Redis's clock was set by more than a second, as this worker saw it.",
                &[],
            ),
            log: Mutex::new(LogBudget { second: None, lines: 0, suppressed: 0 }),
        }
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let source = match decision.source() {
            Source::Redis => 0,
            Source::Lease => 1,
            Source::DenialCache => 2,
            Source::Local => 3,
            Source::None => return,
        };
        for state in decision.policies() {
            let verdict = match decision.verdict() {
                Verdict::Allowed if state.violated => 3,
                Verdict::Allowed => 0,
                Verdict::Denied | Verdict::Unavailable if !state.violated || state.shadow => continue,
                Verdict::Denied => 1,
                Verdict::Unavailable => 2,
            };
            let policy = usize::from(state.policy);
            self.decisions[policy][verdict][source].inc();
            if verdict == 0 && state.remaining < state.limit / 5 {
                self.nearly[policy].inc();
            }
        }
    }

    pub(crate) fn called(&self, script: Script, call: Call) {
        self.calls[script as usize][call as usize].inc();
    }

    pub(crate) fn settlement(&self, is_kept: bool) {
        self.settlements[usize::from(!is_kept)].inc();
    }

    pub(crate) fn clock_stepped(&self) {
        self.clock_steps.inc();
    }

    /// Whether a line may be written now, and how many were not since the last one.
    pub(crate) fn may_log(&self, now: Instant) -> Option<u64> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.second.is_none_or(|second| now.saturating_duration_since(second) >= Duration::from_secs(1)) {
            (log.second, log.lines) = (Some(now), 0);
        }
        if log.lines == LINES_PER_SECOND {
            log.suppressed += 1;
            return None;
        }
        log.lines += 1;
        Some(std::mem::take(&mut log.suppressed))
    }
}
