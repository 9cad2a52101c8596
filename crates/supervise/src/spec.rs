//! What a supervisor is asked to run.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Schedule;

/// Everything a supervisor needs to know. [`Spec::new`] fills in the defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// What every worker runs.
    pub program: Program,
    /// How many workers; at least 1.
    pub workers: u32,
    /// Where the workers accept connections, in the order they inherit the sockets.
    pub listen: Vec<ListenAddress>,
    /// One more socket that all our own workers share; foreign programs do not get it.
    pub admin_listen: Option<SocketAddr>,
    /// Added to the supervisor's own environment for every worker.
    pub env: Vec<(OsString, OsString)>,
    /// Given to our own workers in a sealed memory file.
    pub settings: Vec<u8>,
    /// The user that workers and processes run as; the supervisor keeps its own. Needs root.
    pub user: Option<String>,
    /// Processes that are started before the workers and stopped after them.
    pub processes: Vec<AuxiliaryProcess>,
    /// Where commands reach this supervisor; created with mode 0600, its directory with 0700.
    pub control_socket: PathBuf,
    /// How long a drain may take before SIGKILL.
    pub kill_timeout: Duration,
    /// How long a worker may take to become ready before it is killed and counted as failed.
    pub ready_timeout: Duration,
    /// A foreign program that says nothing counts as ready after this.
    pub min_uptime: Duration,
    /// How long the first worker of a new generation must serve without a crash before the others follow.
    pub canary: Duration,
    /// How long a worker that has reported once may be silent before it is killed and replaced.
    pub hang_timeout: Duration,
    /// When workers are replaced although nothing is wrong with them.
    pub recycling: Recycling,
    /// Bind each worker to one processor.
    pub cpu_affinity: bool,
    /// Where output goes besides stdout; nowhere when absent.
    pub log_files: Option<LogFiles>,
    /// Whether captured lines go out as JSON instead of with a prefix.
    pub log_json: bool,
    /// Shown by `status` and `ping`.
    pub version: String,
}

impl Spec {
    /// Runs `program` in one worker, listening nowhere yet, with the customary timeouts.
    pub fn new(program: Program, control_socket: PathBuf) -> Self {
        Self {
            program,
            workers: 1,
            listen: Vec::new(),
            admin_listen: None,
            env: Vec::new(),
            settings: Vec::new(),
            user: None,
            processes: Vec::new(),
            control_socket,
            kill_timeout: Duration::from_secs(30),
            ready_timeout: Duration::from_secs(30),
            min_uptime: Duration::from_secs(1),
            canary: Duration::from_secs(2),
            hang_timeout: Duration::from_secs(10),
            recycling: Recycling::default(),
            cpu_affinity: false,
            log_files: None,
            log_json: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// When workers are replaced although nothing is wrong with them; one at a time, the successor first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recycling {
    /// Resident memory of one worker, in bytes, looked at every second.
    pub max_memory: Option<u64>,
    /// Requests of one worker; ±15 %, so that not all come to it at once.
    pub max_requests: Option<u64>,
    /// Time since it was started; ±15 %.
    pub max_age: Option<Duration>,
    /// All workers whenever this says so.
    pub schedule: Option<Schedule>,
}

/// Files that hold what was captured, rotated by size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFiles {
    /// Where they lie; created with mode 0700.
    pub directory: PathBuf,
    /// A file that would grow beyond this is rotated first.
    pub max_bytes: u64,
    /// How many files per stream, the one being written included.
    pub count: u32,
}

/// What a worker runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Program {
    /// Our own worker. Opened once at start and executed from that descriptor ever after, so a crash restart
    /// never picks up a half-installed file. Speaks the channel's protocol and says `READY=1`.
    Own {
        /// The executable file.
        executable: PathBuf,
        /// Its arguments, without the program's name.
        args: Vec<OsString>,
    },
    /// Any program that takes `LISTEN_FDS`; looked up in `PATH` once and executed by path.
    Foreign {
        /// A path, or a name to be found in `PATH`.
        program: OsString,
        /// Its arguments, without the program's name.
        args: Vec<OsString>,
    },
}

/// A process beside the workers, such as a private Redis or a job runner, restarted by the workers' rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuxiliaryProcess {
    /// Names it in `status` and before its log lines.
    pub name: String,
    /// A path, or a name to be found in `PATH`.
    pub program: OsString,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// Added to the supervisor's own environment.
    pub env: Vec<(OsString, OsString)>,
    /// Whether it says `READY=1` on its `NOTIFY_SOCKET`; another counts as ready after [`Spec::min_uptime`].
    pub notifies: bool,
}

/// Where workers accept connections, written `127.0.0.1:8080`, `[::1]:8080` or `unix:/run/x.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenAddress {
    /// Sharded: one socket per slot. Port 0 lets the system choose.
    Tcp(SocketAddr),
    /// One socket shared by all slots.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err("a path is missing after unix:".to_owned()),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                format!("{text} is neither an address with a port, such as 127.0.0.1:8080, nor unix:PATH")
            }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in ["127.0.0.1:8080", "[::1]:0", "unix:/run/bellwether/http.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_address_without_a_port_or_a_path_is_refused() {
        for text in ["", "8080", "127.0.0.1", "localhost:http", "unix:"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
