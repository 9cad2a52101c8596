//! What `status` reports: plain data that serialises to exactly the published JSON, `bellwether.status/v1`.
//!
//! A value that is not known is `null`, never absent.

use serde::{Deserialize, Serialize};

/// The name of the document's format.
pub const SCHEMA: &str = "bellwether.status/v1";

/// The name of the format of [`Description`].
pub const DESCRIBE_SCHEMA: &str = "bellwether.describe/v1";

/// One supervisor with everything it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The parent process.
    pub supervisor: SupervisorStatus,
    /// By slot; during a replacement a slot has several, the one that counts first.
    pub workers: Vec<WorkerStatus>,
    /// The auxiliary processes, in the order they were started.
    pub processes: Vec<ProcessStatus>,
    /// The machine.
    pub host: HostStatus,
    /// What the workers depend on, as they report it; empty until one has.
    pub dependencies: Vec<DependencyStatus>,
}

/// The machine that all of this runs on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostStatus {
    /// Its name.
    pub name: String,
    /// Processors this supervisor may use.
    pub cpus: u32,
    /// Averages over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Physical memory.
    pub memory_bytes: Option<u64>,
    /// What of it is available to programs.
    pub memory_available_bytes: Option<u64>,
}

/// One thing the workers depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependencyStatus {
    /// Its name: `redis`, `cache`, `database`.
    pub name: String,
    /// How many workers reach it.
    pub reached_by: u32,
    /// How many workers have told.
    pub workers: u32,
    /// For people, without secrets: what kind of server and where.
    pub detail: String,
}

/// One worker in full, `bellwether.describe/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Always [`DESCRIBE_SCHEMA`].
    pub schema: String,
    /// As in `status`: the worker that serves in the slot, or why there is none.
    pub worker: WorkerStatus,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The executable file.
    pub executable: String,
    /// The user it runs as; the supervisor's own when absent.
    pub user: Option<String>,
    /// When it was started, as RFC 3339 in UTC.
    pub started_at: Option<String>,
    /// Where it accepts connections.
    pub listen: Vec<String>,
    /// How the slot's last workers ended, the newest last; at most 10.
    pub exits: Vec<LastExit>,
    /// Its counters and gauges as it last sent them, those of histograms as count and sum.
    pub metrics: Vec<Metric>,
}

/// One value of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name with its labels, as Prometheus writes them.
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// The parent process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// Its process id.
    pub pid: i32,
    /// Its version.
    pub version: String,
    /// Since it was started.
    pub uptime_seconds: f64,
    /// Of the newest workers.
    pub generation: u32,
    /// What it is doing.
    pub state: SupervisorState,
    /// The addresses as they were bound, so never with port 0.
    pub listen: Vec<String>,
    /// How many workers there should be.
    pub workers_wanted: u32,
}

/// What a supervisor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SupervisorState {
    /// Keeping its workers alive.
    Running,
    /// Replacing them one by one.
    Reloading,
    /// Ending.
    Draining,
}

/// One slot and the worker in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The slot's number.
    pub id: u32,
    /// `null` between two lives.
    pub pid: Option<i32>,
    /// Of the present worker, or the last one.
    pub generation: u32,
    /// Where in its life it is.
    pub state: State,
    /// How often the slot's worker was replaced after it ended by itself.
    pub restarts: u64,
    /// Since the present worker was started.
    pub uptime_seconds: Option<f64>,
    /// Of one core, over about the last second.
    pub cpu_percent: Option<f64>,
    /// Resident memory.
    pub rss_bytes: Option<u64>,
    /// Open connections.
    pub connections: Option<u64>,
    /// Since the present worker was started.
    pub requests_total: Option<u64>,
    /// Over about the last second.
    pub requests_per_second: Option<f64>,
    /// Of the requests of about the last second.
    pub p99_seconds: Option<f64>,
    /// How late the worker's loop was when it last looked.
    pub loop_lag_seconds: Option<f64>,
    /// How the slot's last worker ended; `null` if none has.
    pub last_exit: Option<LastExit>,
    /// Why it is broken or waits; `null` when all is well.
    pub reason: Option<String>,
}

/// Where in its life a worker or an auxiliary process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Started and not ready yet.
    Starting,
    /// Doing its work.
    Ready,
    /// Told to end.
    Draining,
    /// Waiting to be started again after a failure.
    Backoff,
    /// Not started again: it said that it must not be.
    Broken,
    /// Not started, because the supervisor is ending or has not come to it yet.
    Stopped,
}

impl State {
    /// Every one of them.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Ready, Self::Draining, Self::Backoff, Self::Broken, Self::Stopped];

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Backoff => "backoff",
            Self::Broken => "broken",
            Self::Stopped => "stopped",
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastExit {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When, as RFC 3339 in UTC.
    pub at: String,
}

/// One auxiliary process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its name.
    pub name: String,
    /// `null` between two lives.
    pub pid: Option<i32>,
    /// Where in its life it is.
    pub state: State,
    /// How often it was replaced after it ended by itself.
    pub restarts: u64,
    /// Since the present process was started.
    pub uptime_seconds: Option<f64>,
}
