//! The answer to a request.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;

use crate::{request::Part, state::held::Held};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass, after [`Decision::delay`].
    Allowed,
    /// It is over a limit.
    Denied,
    /// Redis is away, and a policy lets nobody pass then. Nobody is over a limit.
    Unavailable,
}

/// Who made a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Redis, exactly, over all workers.
    Redis,
    /// This worker, from what Redis granted it ahead.
    Lease,
    /// This worker's memory of an answer of Redis that cannot have changed since.
    DenialCache,
    /// This worker alone, from its part of the limit or as its policies say, because Redis is away.
    Local,
    /// Nobody: no policy applies.
    None,
}

/// What is known of one policy after a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyState {
    /// The policy's number; see [`crate::Policies::name`].
    pub policy: u8,
    /// Units per window.
    pub limit: u64,
    /// Units left; of this worker's part when the source is [`Source::Local`].
    pub remaining: u64,
    /// Until more units are to be had, or for a denied request until it could pass; `None`: never.
    pub reset: Option<Duration>,
    /// Whether it was against this request: one that is only shadowed was not denied for that.
    pub violated: bool,
    /// Whether it only counts and reports.
    pub shadow: bool,
    /// What was counted, and where.
    pub(crate) part: Part,
    pub(crate) units: u64,
    /// Redis's clock then, in microseconds since the Unix epoch: what is given back goes to that window.
    pub(crate) counted_us: u64,
    /// How many of the last ones of its group a shadowed policy was against.
    pub(crate) shadowed: u32,
}

pub(crate) type States = SmallVec<[PolicyState; 2]>;

/// Whether a request may pass, and why. Units at the same time are given back with the last clone.
#[derive(Debug, Clone)]
pub struct Decision {
    pub(crate) verdict: Verdict,
    pub(crate) source: Source,
    pub(crate) states: States,
    pub(crate) delay: Duration,
    pub(crate) held: SmallVec<[Arc<Held>; 1]>,
}

impl Decision {
    pub(crate) fn unlimited() -> Self {
        Self::new(Verdict::Allowed, Source::None, States::new())
    }

    pub(crate) fn new(verdict: Verdict, source: Source, states: States) -> Self {
        Self { verdict, source, states, delay: Duration::ZERO, held: SmallVec::new() }
    }

    /// What becomes of the request.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether the request may pass.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allowed
    }

    /// How long the request is to be held up before it passes; zero unless a policy paces.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Whether units at the same time are held as long as this decision is.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Who decided.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The policies that apply and what is left of them. A denial from memory knows only those that are used up.
    pub fn policies(&self) -> &[PolicyState] {
        &self.states
    }

    /// The policies because of which the request was denied.
    pub fn violated(&self) -> impl Iterator<Item = &PolicyState> {
        let denied = self.verdict == Verdict::Denied;
        self.states.iter().filter(move |state| denied && state.violated && !state.shadow)
    }

    /// When the request may be tried again; `None` when it was let through, or could never pass.
    pub fn retry_after(&self) -> Option<Duration> {
        let waits = self.violated().map(|state| state.reset);
        waits.max_by_key(|wait| wait.unwrap_or(Duration::MAX)).flatten()
    }
}
