//! One unit's place in life.

use std::time::Instant;

use super::{Readiness, Rules};
use crate::status::State;

/// What is remembered about a worker's slot or an auxiliary process over all its processes.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) life: Life,
    pub(super) readiness: Readiness,
    configured_readiness: Readiness,
    /// Failures in a row that count, see `Fleet::restart_wait`.
    pub(super) failures: u32,
    pub(super) restarts: u64,
    pub(super) first_attempt_ended: bool,
    /// Since the last ready process ended, for as long as that is tolerated in the steering.
    pub(super) vacant_since: Option<Instant>,
    ever_ready: bool,
}

/// The process of a slot, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Stopped,
    Waiting {
        until: Instant,
    },
    /// A spawn was asked for and its result is not known yet.
    Spawning,
    /// `condemned` once SIGKILL was sent.
    Starting {
        pid: i32,
        since: Instant,
        condemned: bool,
    },
    Ready {
        pid: i32,
        since: Instant,
    },
    Draining {
        pid: i32,
        deadline: Instant,
        killed: bool,
        was_ready: bool,
    },
    Broken,
}

impl Slot {
    pub(super) fn new(readiness: Readiness) -> Self {
        Self {
            life: Life::Stopped,
            readiness,
            configured_readiness: readiness,
            failures: 0,
            restarts: 0,
            first_attempt_ended: false,
            vacant_since: None,
            ever_ready: false,
        }
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.life = Life::Waiting { until: now };
    }

    pub(super) fn begin_life(&mut self, pid: i32, now: Instant) {
        self.readiness = self.configured_readiness;
        self.life = Life::Starting { pid, since: now, condemned: false };
    }

    pub(super) fn become_ready(&mut self, pid: i32, now: Instant) {
        self.life = Life::Ready { pid, since: now };
        self.vacant_since = None;
        self.first_attempt_ended = true;
        self.ever_ready = true;
    }

    pub(super) fn was_ever_ready(&self) -> bool {
        self.ever_ready
    }

    pub(super) fn has_no_process(&self) -> bool {
        matches!(self.life, Life::Stopped | Life::Broken)
    }

    /// When this slot's life goes on by itself.
    pub(super) fn due(&self, rules: &Rules) -> Option<Instant> {
        match self.life {
            Life::Waiting { until } => Some(until),
            Life::Starting { since, condemned: false, .. } => {
                let last = since + rules.ready_timeout;
                match self.readiness {
                    Readiness::Said => Some(last),
                    Readiness::SaidOrAlive(min_uptime) => Some(last.min(since + min_uptime)),
                }
            }
            Life::Draining { deadline, killed: false, .. } => Some(deadline),
            _ => None,
        }
    }

    pub(super) fn state(&self) -> State {
        match self.life {
            Life::Stopped => State::Stopped,
            Life::Waiting { .. } => State::Backoff,
            Life::Spawning | Life::Starting { .. } => State::Starting,
            Life::Ready { .. } => State::Ready,
            Life::Draining { .. } => State::Draining,
            Life::Broken => State::Broken,
        }
    }
}

impl Life {
    pub(super) fn pid(self) -> Option<i32> {
        match self {
            Self::Starting { pid, .. } | Self::Ready { pid, .. } | Self::Draining { pid, .. } => Some(pid),
            Self::Stopped | Self::Waiting { .. } | Self::Spawning | Self::Broken => None,
        }
    }
}
