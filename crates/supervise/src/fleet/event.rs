//! What the fleet is told and what it answers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Rules;
use crate::control::Scale;
use crate::frame::DrainKind;

/// Something that has one process at a time, or two while one replaces the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Unit {
    /// The slot of this number.
    Worker(u32),
    /// The auxiliary process of this index.
    Process(u32),
}

/// Names somebody who waits for the end of what they asked for.
pub(crate) type Ticket = u64;

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Begin.
    Start,
    /// A [`Action::Spawn`] was carried out.
    Spawned { unit: Unit, pid: i32 },
    /// A [`Action::Spawn`] could not be carried out.
    SpawnFailed { unit: Unit, reason: String },
    /// A process said something that is not `READY=1`, so it will say that too.
    Spoke { pid: i32 },
    /// A process said `READY=1`.
    Ready { pid: i32 },
    /// A process said `STOPPING=1`: it accepts no more.
    Stopping { pid: i32 },
    /// A process showed that it is not stuck.
    Beat { pid: i32 },
    /// What a worker uses, as far as it is known.
    Usage { pid: i32, rss_bytes: Option<u64>, requests: Option<u64> },
    /// A process ended; it may be a stranger's.
    Exited { pid: i32, exit: Exit },
    /// How many connections wait at the shard of a slot: the answer to [`Action::LookAtQueue`].
    Queue { slot: u32, length: u32 },
    /// Replace all workers by the next generation, which lives by `rules`. Not while another reload is under way.
    Reload { ticket: Option<Ticket>, rules: Box<Rules> },
    /// Run another number of workers. There are shards for all of them already. Not during a reload.
    Scale { ticket: Option<Ticket>, scale: Scale },
    /// Replace a worker, or all. Not during a reload.
    Restart { ticket: Option<Ticket>, slot: Option<u32>, hard: bool },
    /// The schedule asks for new workers.
    Scheduled,
    /// This process was not running for a while, so nobody's silence means anything.
    Woke,
    /// Drain and end.
    Stop,
    /// Kill and end.
    StopNow,
    /// Time went by.
    Tick,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal from the kernel or another process.
    Signal(i32),
    /// By SIGKILL from the kernel for want of memory.
    OutOfMemory,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Start a process; answered by [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn { unit: Unit, generation: u32 },
    /// Tell a process to finish and end.
    Drain { pid: i32, kind: DrainKind },
    /// SIGABRT to a process, which then tells where it was stuck.
    Abort { pid: i32 },
    /// SIGKILL to the process's whole group.
    Kill { pid: i32 },
    /// Send new connections to these slots only.
    Steer(Vec<u32>),
    /// Tell how many connections wait at the shard of this slot: [`Event::Queue`].
    LookAtQueue { slot: u32 },
    /// Have a ready worker take what waits at the shard of this slot, which gets no new connections.
    Adopt { slot: u32 },
    /// Tell the workers of the first `count` slots that there are so many.
    TellNumber { count: u32 },
    /// Every worker is ready, for the first time.
    AllReady,
    /// Leave the listening sockets to the workers that drain.
    CloseListeners,
    /// Tell people.
    Log(String),
    /// What this ticket stands for has happened.
    Done { ticket: Ticket },
    /// What this ticket stands for has not happened, and why.
    Failed { ticket: Ticket, message: String },
    /// The reload is over; without a failure, the new generation serves alone.
    ReloadEnded { ticket: Option<Ticket>, failure: Option<ReloadFailure> },
    /// Nothing runs any more: end.
    End(Outcome),
}

/// Why everything is as it was before a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReloadFailure {
    /// Which worker, and what became of it; a sentence.
    pub(crate) message: String,
    /// Whose last words may tell more, if it came so far as to be a process.
    pub(crate) pid: Option<i32>,
}

/// Why a worker was replaced, as the metric of restarts has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reason {
    /// It ended by itself or was killed from outside.
    Crash,
    /// It was silent for too long.
    Hang,
    /// It used too much memory.
    Memory,
    /// It has answered enough requests.
    Requests,
    /// It is old.
    Age,
    /// It is time.
    Cron,
    /// Somebody asked for it.
    Restart,
    /// A reload.
    Reload,
}

impl Reason {
    /// Its label in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::Memory => "memory",
            Self::Requests => "requests",
            Self::Age => "age",
            Self::Cron => "cron",
            Self::Restart => "restart",
            Self::Reload => "reload",
        }
    }
}

/// How the life of a supervisor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Everything in flight was finished.
    Clean,
    /// Requests were given up: a worker said so, had to be killed, or was not waited for.
    Cut,
    /// No worker was ever ready, and each has failed too often.
    NeverReady,
    /// No worker was ever ready, and each said with exit code 78 that it must not be started again.
    Misconfigured,
}

impl Outcome {
    /// The exit code of the command: 0, 1, 75 or 78.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Cut => 1,
            Self::NeverReady => 75,
            Self::Misconfigured => 78,
        }
    }
}

impl Exit {
    /// What a process that was told to end may end with when nothing was left undone.
    pub(super) fn is_clean_end(self) -> bool {
        const BY_TERM: i32 = nix::libc::SIGTERM;
        matches!(self, Self::Code(0) | Self::Signal(BY_TERM)) || self == Self::Code(128 + BY_TERM)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(0) => write!(f, "ended"),
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "was ended by signal {signal} ({name})"),
                Err(_) => write!(f, "was ended by signal {signal}"),
            },
            Self::OutOfMemory => write!(f, "was killed by the kernel, which is out of memory"),
        }
    }
}
