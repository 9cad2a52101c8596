//! The harness: a real supervisor with real workers, started as its user would start it, in a directory and on ports of its own.

mod builder;
mod watch;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use test_support::http::{self, Request, Response};
use test_support::{Binaries, Control, GuardedChild, Signal, eventually, process};

pub(crate) use self::builder::Builder;
use self::builder::{Launch, Share};

/// How long a debug build may take to migrate, seed and become ready on a busy machine.
pub(crate) const START: Duration = Duration::from_secs(60);

/// Every worker tells of itself once a second.
const REPORTED_WITHIN: Duration = Duration::from_millis(1_300);

/// A running supervisor. Dropping it stops everything and checks that no process is left behind.
pub(crate) struct Cluster {
    supervisor: GuardedChild,
    directory: TempDir,
    /// Where the workers serve.
    pub(crate) address: SocketAddr,
    /// Where metrics are.
    pub(crate) admin: SocketAddr,
    output: Arc<Mutex<String>>,
    launch: Launch,
    _share: Share,
}

/// A worker as `status --json` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Worker {
    pub(crate) id: u64,
    pub(crate) pid: u32,
    pub(crate) generation: u64,
    pub(crate) restarts: u64,
}

impl Cluster {
    pub(crate) fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.send(&Request::get(path))
    }

    pub(crate) fn send(&self, request: &Request) -> Response {
        http::send_blocking(self.address, request).unwrap_or_else(|error| panic!("{error}\n{}", self.output()))
    }

    /// What `status --json` prints, asked for at the control socket; nothing while nobody answers there.
    pub(crate) fn status(&self) -> Option<Value> {
        let mut control = Control::connect(&self.control_socket()).ok()?;
        status_by(&mut control)
    }

    /// A connection to the control socket, for many questions.
    pub(crate) fn control(&self) -> Control {
        Control::connect(&self.control_socket()).expect("the supervisor listens")
    }

    /// A supervisor command against this cluster.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        let mut command = supervisor();
        command.args(arguments).args(["--socket".as_ref(), self.control_socket().as_os_str()]);
        command.output().expect("the command can be run")
    }

    /// Where `up` keeps its sockets, secrets and data.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.supervisor.pid()
    }

    /// The workers that are ready, by slot.
    pub(crate) fn ready_workers(&self) -> Vec<Worker> {
        self.status().as_ref().map(ready_workers_in).unwrap_or_default()
    }

    fn wanted_workers(&self) -> usize {
        self.status().and_then(|status| status["supervisor"]["workers_wanted"].as_u64()).unwrap_or(u64::MAX) as usize
    }

    /// The pid of the private Redis.
    pub(crate) fn redis_pid(&self) -> u32 {
        let status = self.status().expect("the supervisor answers");
        let processes = status["processes"].as_array().expect("processes is a list").clone();
        let redis = processes.iter().find(|process| process["name"] == "redis").expect("up starts a redis");
        redis["pid"].as_u64().expect("a running redis has a pid") as u32
    }

    /// Sends a signal to the supervisor alone.
    pub(crate) fn signal(&mut self, signal: Signal) {
        self.supervisor.signal(signal);
    }

    /// Writes another configuration, which counts from the next reload on.
    pub(crate) fn configure(&self, toml: &str) {
        self.launch.configure(toml);
    }

    /// Starts the same once more, after it has ended, and waits until every worker is ready.
    pub(crate) fn start_again(&mut self) {
        self.supervisor = self.launch.run(&self.output);
        self.wait_until_ready();
    }

    /// Waits for the supervisor's end.
    pub(crate) fn wait(&mut self, deadline: Duration) -> ExitStatus {
        self.supervisor
            .wait_within(deadline)
            .unwrap_or_else(|| panic!("the supervisor still runs after {deadline:?}\n{}", self.output()))
    }

    /// Everything that was printed so far, both streams.
    pub(crate) fn output(&self) -> String {
        self.output.lock().expect("nobody panics while holding the output").clone()
    }

    /// A bearer token that `up` printed.
    pub(crate) fn token(&self) -> String {
        eventually(Duration::from_secs(20), || {
            let output = self.output();
            output
                .split_whitespace()
                .map(|word| word.trim_matches(['"', '\'']))
                .find(|word| word.starts_with("eyJ"))
                .map(str::to_owned)
        })
    }

    /// The ids and bodies of the first `count` products.
    pub(crate) fn products(&self, count: usize) -> Vec<Value> {
        let list: Value =
            serde_json::from_slice(&self.get(&format!("/api/v1/products?limit={count}")).body).expect("a list is JSON");
        list["items"].as_array().expect("a list has items").clone()
    }

    /// The sum of every metric whose name with labels `is_meant` accepts, of all workers there are and were. A worker's figures
    /// are up to a second old, unless it is the one that answers.
    pub(crate) fn total(&self, is_meant: impl Fn(&str) -> bool) -> f64 {
        let text = self.metrics();
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        samples.filter(|(name, _)| is_meant(name)).filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
    }

    /// As [`Cluster::total`], once every worker has told of everything that has happened before this call.
    pub(crate) fn settled_total(&self, is_meant: impl Fn(&str) -> bool) -> f64 {
        let asked = Instant::now();
        eventually(Duration::from_secs(5), || asked.elapsed() > REPORTED_WITHIN);
        self.total(is_meant)
    }

    /// What Prometheus would read.
    pub(crate) fn metrics(&self) -> String {
        let answer = http::get_blocking(self.admin, "/metrics").expect("metrics are served");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }

    /// Requests answered so far.
    pub(crate) fn requests(&self) -> f64 {
        self.total(|name| name.starts_with("http_server_request_duration_seconds_count"))
    }

    /// Reads of one product that reached the database.
    pub(crate) fn product_reads(&self) -> f64 {
        self.settled_total(|name| {
            name.starts_with("db_client_operation_duration_seconds_count") && name.contains("\"product.find\"")
        })
    }

    fn control_socket(&self) -> PathBuf {
        self.state_dir().join("supervisor.sock")
    }

    fn died(&self) -> Option<String> {
        (!process::is_alive(self.supervisor.pid()) || process::state(self.supervisor.pid()) == Some('Z'))
            .then(|| "no supervisor process".to_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let children = process::descendants(self.supervisor.pid());
        self.supervisor.signal(Signal::SIGTERM);
        let ended = self.supervisor.wait_within(Duration::from_secs(40)).is_some();
        if std::thread::panicking() {
            println!("--- output of the cluster\n{}", self.output());
            return;
        }
        assert!(ended, "the supervisor did not end\n{}", self.output());
        for pid in children {
            eventually(Duration::from_secs(5), || !process::is_alive(pid));
        }
    }
}

/// What a supervisor tells of itself and its workers now.
pub(crate) fn status_by(control: &mut Control) -> Option<Value> {
    let reply: Value = serde_json::from_str(&control.ask("\"Status\"").ok()?).expect("a reply is JSON");
    Some(reply["Status"].clone())
}

/// The workers that are ready as `status` has it, successors on the way included.
pub(crate) fn ready_workers_in(status: &Value) -> Vec<Worker> {
    let workers = status["workers"].as_array().expect("workers is a list").iter();
    let ready = workers.filter(|worker| worker["state"] == "ready");
    ready
        .map(|worker| Worker {
            id: worker["id"].as_u64().expect("an id is a number"),
            pid: u32::try_from(worker["pid"].as_u64().expect("a ready worker has a pid")).expect("pids fit"),
            generation: worker["generation"].as_u64().expect("a generation is a number"),
            restarts: worker["restarts"].as_u64().expect("restarts is a number"),
        })
        .collect()
}

/// The supervisor's executable with a clean environment.
pub(crate) fn supervisor() -> Command {
    supervisor_by(Binaries::supervisor())
}

/// A program that is, or starts, a supervisor with a clean environment: what the person at the keyboard has set must not decide a test.
pub(crate) fn supervisor_by(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in [
        "REDIS_URL",
        "DATABASE_URL",
        "PORT",
        "HOST",
        "WEB_CONCURRENCY",
        "RUST_LOG",
        "TRUSTED_PROXIES",
        "XDG_RUNTIME_DIR",
        "RUNTIME_DIRECTORY",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "JOURNAL_STREAM",
    ] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").current_dir(std::env::temp_dir());
    command
}

/// Runs a supervisor command that is to end by itself.
pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Output {
    supervisor()
        .current_dir(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the supervisor can be run")
}
