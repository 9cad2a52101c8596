//! What can keep a supervisor from starting.

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Why a supervisor could not be started. Once it runs, trouble is logged and retried, never returned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else listens on an address of ours.
    #[error("cannot listen on {address}: {}", taken_by(.holder.as_deref()))]
    AddressTaken {
        /// The address as it was asked for.
        address: String,
        /// Who listens there, as `redis-server (pid 7)`, when that can be found out.
        holder: Option<String>,
    },
    /// An address cannot be bound for another reason than that it is taken.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address as it was asked for.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Another supervisor holds the control socket or the state directory.
    #[error("{} is in use by another supervisor{}", .path.display(), with_pid(*.pid))]
    AlreadyRunning {
        /// The lock file.
        path: PathBuf,
        /// The other supervisor, if it left its process id in the lock file.
        pid: Option<i32>,
    },
    /// A file or directory the supervisor needs cannot be created.
    #[error("cannot create {}: {source}", .path.display())]
    CannotCreate {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The program of the workers or of an auxiliary process cannot be found or opened.
    #[error("cannot run {}: {source}", .path.display())]
    Program {
        /// As it was asked for.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The user that workers should run as does not exist.
    #[error("there is no user {name}")]
    NoSuchUser {
        /// As it was asked for.
        name: String,
    },
    /// Workers should run as another user, and only root may arrange that.
    #[error("only root may run workers as another user")]
    NotPermitted,
    /// What the supervisor before this one has left is not understood.
    #[error("cannot go on where the supervisor before this one stopped: {reason}")]
    Handover {
        /// What is wrong with it.
        reason: String,
    },
    /// The workers' user could put other files in the place of those the supervisor keeps in its state directory.
    #[error("{} can be changed by {user}, whose workers must not touch the supervisor's files: make it root's alone, or keep the state elsewhere", .path.display())]
    Changeable {
        /// The state directory.
        path: PathBuf,
        /// The workers' user.
        user: String,
    },
    /// The workers' user cannot get to the state directory.
    #[error("{user} cannot enter {}, so workers cannot reach {}", .closed.display(), .path.display())]
    OutOfReach {
        /// The state directory.
        path: PathBuf,
        /// The directory on the way to it that is closed.
        closed: PathBuf,
        /// The workers' user.
        user: String,
    },
    /// The service manager handed over something that cannot be served at.
    #[error("descriptor {descriptor}, handed over by the service manager, {reason}")]
    Activation {
        /// Its number.
        descriptor: RawFd,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused something that never fails on a healthy machine.
    #[error("cannot {what}: {source}")]
    System {
        /// What was being done, as a verb phrase.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl Error {
    /// The exit code a command reports this with: 73 cannot create or bind, 69 missing program, 75 busy, 77, 78 or 70.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::AddressTaken { .. } | Self::Bind { .. } | Self::CannotCreate { .. } => 73,
            Self::AlreadyRunning { .. } => 75,
            Self::Program { .. } => 69,
            Self::NoSuchUser { .. } | Self::Activation { .. } => 78,
            Self::NotPermitted | Self::Changeable { .. } | Self::OutOfReach { .. } => 77,
            Self::Handover { .. } | Self::System { .. } => 70,
        }
    }
}

fn taken_by(holder: Option<&str>) -> String {
    holder.map_or_else(|| "the address is in use".to_owned(), |holder| format!("{holder} listens there"))
}

fn with_pid(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}
