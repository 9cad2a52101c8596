//! One unit's place in life.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::event::Reason;
use super::{Readiness, Rules};
use crate::status::State;

/// What is remembered about a worker's slot or an auxiliary process over all its processes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Slot {
    /// The process that counts.
    pub(super) life: Life,
    /// Started beside a ready worker to take its place.
    pub(super) successor: Option<Successor>,
    /// Told to end, the oldest first.
    pub(super) leaving: Vec<Leaving>,
    /// What `life` runs, or will when it is started again.
    pub(super) generation: u32,
    /// What the process that counts has shown of itself.
    pub(super) signs: Signs,
    /// The process is to be replaced although it serves.
    pub(super) replacement: Option<Replacement>,
    /// The slot is not wanted any more, but its worker has not been told to end yet.
    pub(super) retiring: Option<Retiring>,
    /// Failures in a row that count, see `Fleet::restart_wait`.
    pub(super) failures: u32,
    /// When the last failures happened that count for the breaker, the newest last.
    #[serde(with = "crate::handover::moment::list")]
    pub(super) failed_at: VecDeque<Instant>,
    /// The breaker lets one attempt through.
    pub(super) half_open: bool,
    pub(super) restarts: u64,
    pub(super) first_attempt_ended: bool,
    /// Since the last ready process ended, for as long as that is tolerated in the steering.
    #[serde(with = "crate::handover::moment::option")]
    pub(super) vacant_since: Option<Instant>,
    /// The slot gets no connections, though others do; what still waits at its shard is looked at then.
    #[serde(with = "crate::handover::moment::option")]
    pub(super) adopt_at: Option<Instant>,
    /// The worker was not heard of for longer than it should be.
    pub(super) is_silent: bool,
    /// Why there is no ready process.
    pub(super) reason: Option<String>,
    configured_readiness: Readiness,
}

/// The process of a slot, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Life {
    Stopped,
    Waiting {
        #[serde(with = "crate::handover::moment")]
        until: Instant,
    },
    /// A spawn was asked for and its result is not known yet.
    Spawning,
    /// `condemned` once SIGKILL was sent.
    Starting {
        pid: i32,
        #[serde(with = "crate::handover::moment")]
        since: Instant,
        condemned: bool,
    },
    Ready {
        pid: i32,
        #[serde(with = "crate::handover::moment")]
        since: Instant,
    },
    /// Not started again before `retry_at`, or at all.
    Broken {
        #[serde(with = "crate::handover::moment::option")]
        retry_at: Option<Instant>,
    },
}

/// A worker that is to take the place of another.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Successor {
    /// `Spawning`, `Starting`, or `Ready` while it proves itself.
    pub(super) life: Life,
    pub(super) generation: u32,
    pub(super) signs: Signs,
}

/// What a process has shown of itself.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Signs {
    pub(super) readiness: Readiness,
    #[serde(with = "crate::handover::moment::option")]
    pub(super) last_beat: Option<Instant>,
    /// Multiplies what a worker may do or age before it is replaced, so that not all come to it at once.
    pub(super) spread: f64,
}

/// A process that was told to end.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Leaving {
    pub(super) pid: i32,
    #[serde(with = "crate::handover::moment")]
    pub(super) deadline: Instant,
    pub(super) killed: bool,
    /// Its end without a kill or an error is what was asked for.
    pub(super) was_ready: bool,
    /// Until when it is believed to accept connections still, unless it says `STOPPING=1` before.
    #[serde(default, with = "crate::handover::moment::option")]
    pub(super) accepts_until: Option<Instant>,
}

/// A wish to replace a worker that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Replacement {
    pub(super) reason: Reason,
    #[serde(with = "crate::handover::moment")]
    pub(super) not_before: Instant,
    /// How many successors have failed already.
    pub(super) failed: usize,
}

impl Replacement {
    pub(super) fn new(reason: Reason, not_before: Instant) -> Self {
        Self { reason, not_before, failed: 0 }
    }
}

/// A worker that gets no new connections and takes those that are on their way.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Retiring {
    /// Whether anybody waits at its shard is asked then.
    #[serde(with = "crate::handover::moment")]
    pub(super) look_at: Instant,
    /// It is told to end then, whoever waits.
    #[serde(with = "crate::handover::moment")]
    pub(super) latest: Instant,
}

impl Slot {
    pub(super) fn new(readiness: Readiness, generation: u32) -> Self {
        Self {
            life: Life::Stopped,
            successor: None,
            leaving: Vec::new(),
            generation,
            signs: Signs::new(readiness, 1.0),
            replacement: None,
            retiring: None,
            failures: 0,
            failed_at: VecDeque::new(),
            half_open: false,
            restarts: 0,
            first_attempt_ended: false,
            vacant_since: None,
            adopt_at: None,
            is_silent: false,
            reason: None,
            configured_readiness: readiness,
        }
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.life = Life::Waiting { until: now };
    }

    /// Takes note of the process that was asked for: the successor's, if there is one.
    pub(super) fn begin_life(&mut self, pid: i32, now: Instant, spread: f64) {
        let (life, signs) = match &mut self.successor {
            Some(Successor { life: life @ Life::Spawning, signs, .. }) => (life, signs),
            _ => (&mut self.life, &mut self.signs),
        };
        *life = Life::Starting { pid, since: now, condemned: false };
        *signs = Signs::new(self.configured_readiness, spread);
    }

    pub(super) fn become_ready(&mut self, pid: i32, now: Instant) {
        self.life = Life::Ready { pid, since: now };
        self.vacant_since = None;
        self.first_attempt_ended = true;
        self.reason = None;
    }

    /// A new count of failures begins.
    pub(super) fn forget_failures(&mut self) {
        self.failures = 0;
        self.failed_at.clear();
        self.half_open = false;
    }

    pub(super) fn readiness_of_next_process(&mut self, readiness: Readiness) {
        self.configured_readiness = readiness;
    }

    pub(super) fn has_no_process(&self) -> bool {
        matches!(self.life, Life::Stopped | Life::Broken { .. }) && self.successor.is_none() && self.leaving.is_empty()
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.life, Life::Ready { .. })
    }

    pub(super) fn state(&self) -> State {
        match self.life {
            Life::Stopped if !self.leaving.is_empty() => State::Draining,
            life => life.state(),
        }
    }
}

impl Signs {
    pub(super) fn new(readiness: Readiness, spread: f64) -> Self {
        Self { readiness, last_beat: None, spread }
    }

    /// Whether a worker that has shown before that it is not stuck was not heard of for so long.
    pub(super) fn is_silent(&self, tolerated: Duration, now: Instant) -> bool {
        self.last_beat.is_some_and(|beat| now >= beat + tolerated)
    }
}

impl Life {
    pub(super) fn pid(self) -> Option<i32> {
        match self {
            Self::Starting { pid, .. } | Self::Ready { pid, .. } => Some(pid),
            Self::Stopped | Self::Waiting { .. } | Self::Spawning | Self::Broken { .. } => None,
        }
    }

    pub(super) fn is_broken(self) -> bool {
        matches!(self, Self::Broken { .. })
    }

    /// When this life goes on by itself, watchdog and recycling aside.
    pub(super) fn due(self, signs: &Signs, rules: &Rules) -> Option<Instant> {
        match self {
            Self::Waiting { until } => Some(until),
            Self::Starting { since, condemned: false, .. } => {
                let last = since + rules.ready_timeout;
                match signs.readiness {
                    Readiness::Said => Some(last),
                    Readiness::SaidOrAlive(min_uptime) => Some(last.min(since + min_uptime)),
                }
            }
            Self::Broken { retry_at } => retry_at,
            _ => None,
        }
    }

    pub(super) fn state(self) -> State {
        match self {
            Self::Stopped => State::Stopped,
            Self::Waiting { .. } => State::Backoff,
            Self::Spawning | Self::Starting { .. } => State::Starting,
            Self::Ready { .. } => State::Ready,
            Self::Broken { .. } => State::Broken,
        }
    }
}
