//! What the fleet is told and what it answers.

use std::fmt;

/// Something that has one process at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unit {
    /// The slot of this number.
    Worker(u32),
    /// The auxiliary process of this index.
    Process(u32),
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
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
    /// A process ended; it may be a stranger's.
    Exited { pid: i32, exit: Exit },
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
    Drain { pid: i32 },
    /// SIGKILL to the process's whole group.
    Kill { pid: i32 },
    /// Send new connections to these slots only.
    Steer(Vec<u32>),
    /// Every worker is ready, for the first time.
    AllReady,
    /// Leave the listening sockets to the workers that drain.
    CloseListeners,
    /// Tell people.
    Log(String),
    /// Nothing runs any more: end.
    End(Outcome),
}

/// How the life of a supervisor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything in flight was finished.
    Clean,
    /// Requests were given up: a worker said so, had to be killed, or was not waited for.
    Cut,
    /// No worker was ever ready, and each said with exit code 78 that it must not be started again.
    Misconfigured,
}

impl Outcome {
    /// The exit code of the command: 0, 1 or 78.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Cut => 1,
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
