//! The answer to a request.

use std::time::Duration;

use smallvec::SmallVec;

/// Who made a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Redis, exactly, over all workers.
    Redis,
    /// This worker's memory of an answer of Redis that cannot have changed since.
    DenialCache,
    /// This worker alone, from its part of the limit, because Redis is away.
    Local,
    /// Nobody: no policy applies.
    None,
}

/// What is known of one policy after a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyState {
    /// The policy's number; see [`crate::Policies::name`].
    pub policy: u8,
    /// Requests per window.
    pub limit: u64,
    /// Requests left in this window; of this worker's part when the source is [`Source::Local`].
    pub remaining: u64,
    /// Until the window ends.
    pub reset: Duration,
}

pub(crate) type States = SmallVec<[PolicyState; 2]>;

/// Whether a request may pass, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    allowed: bool,
    source: Source,
    states: States,
}

impl Decision {
    pub(crate) fn unlimited() -> Self {
        Self { allowed: true, source: Source::None, states: States::new() }
    }

    pub(crate) fn new(allowed: bool, source: Source, states: States) -> Self {
        Self { allowed, source, states }
    }

    /// Whether the request may pass.
    pub fn is_allowed(&self) -> bool {
        self.allowed
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
        let denied = !self.allowed;
        self.states.iter().filter(move |state| denied && state.remaining == 0)
    }

    /// When the request may be tried again; `None` when it was let through.
    pub fn retry_after(&self) -> Option<Duration> {
        self.violated().map(|state| state.reset).max()
    }
}
