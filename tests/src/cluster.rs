//! The harness: a real supervisor with real workers, started as its user would start it, in a directory and on ports of its own.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use test_support::http::{self, Request, Response};
use test_support::{Binaries, GuardedChild, Signal, eventually, free_port, process};

/// How long a debug build may take to migrate, seed and become ready on a busy machine.
pub(crate) const START: Duration = Duration::from_secs(60);

/// Every worker tells of itself once a second.
const REPORTED_WITHIN: Duration = Duration::from_millis(1_300);

/// What to start. The defaults are `supervisor up` with 2 workers, the small seed, a private Redis and no limits.
pub(crate) struct Builder {
    workers: u32,
    configuration: String,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
}

/// A running `supervisor up`. Dropping it stops everything and checks that no process is left behind.
pub(crate) struct Cluster {
    supervisor: GuardedChild,
    directory: TempDir,
    /// Where the workers serve.
    pub(crate) address: SocketAddr,
    /// Where metrics are.
    pub(crate) admin: SocketAddr,
    output: Arc<Mutex<String>>,
}

/// A worker as `status --json` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Worker {
    pub(crate) id: u64,
    pub(crate) pid: u32,
    pub(crate) restarts: u64,
}

impl Builder {
    pub(crate) fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// Adds lines to the configuration file.
    pub(crate) fn configuration(mut self, toml: &str) -> Self {
        self.configuration.push_str(toml);
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Has the workers run as this user.
    pub(crate) fn user(self, name: &str) -> Self {
        self.argument("--user").argument(name)
    }

    /// Starts it and waits until every worker is ready.
    pub(crate) fn start(self) -> Cluster {
        let cluster = self.spawn();
        eventually(START, || {
            if let Some(line) = cluster.died() {
                panic!("the supervisor ended at once: {line}\n{}", cluster.output());
            }
            let ready = http::get_blocking(cluster.address, "/readyz").is_ok_and(|answer| answer.status == 200);
            ready && cluster.ready_workers().len() == cluster.wanted_workers()
        });
        cluster
    }

    /// Starts it and waits for nothing.
    pub(crate) fn spawn(self) -> Cluster {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let passable = Permissions::from_mode(0o711);
        fs::set_permissions(directory.path(), passable).expect("the workers' user may have to pass through it");
        let file = directory.path().join("bellwether.toml");
        fs::write(&file, &self.configuration).expect("the configuration can be written");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = supervisor();
        command
            .arg("up")
            .args(["--config".as_ref(), file.as_os_str()])
            .args(["--state-dir".as_ref(), directory.path().join("state").as_os_str()])
            .args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()])
            .args(["--workers", &self.workers.to_string()])
            .args(&self.arguments)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut supervisor = GuardedChild::spawn(&mut command).expect("the supervisor can be started");
        let output = Arc::new(Mutex::new(String::new()));
        collect(supervisor.child().stdout.take().expect("stdout is piped"), &output);
        collect(supervisor.child().stderr.take().expect("stderr is piped"), &output);
        Cluster { supervisor, directory, address, admin, output }
    }
}

impl Cluster {
    pub(crate) fn builder() -> Builder {
        Builder { workers: 2, configuration: String::new(), environment: Vec::new(), arguments: Vec::new() }
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.send(&Request::get(path))
    }

    pub(crate) fn send(&self, request: &Request) -> Response {
        http::send_blocking(self.address, request).unwrap_or_else(|error| panic!("{error}\n{}", self.output()))
    }

    /// `status --json`, parsed.
    pub(crate) fn status(&self) -> Option<Value> {
        let output = self.command(&["status", "--json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("status --json prints JSON"))
    }

    /// A supervisor command against this cluster.
    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = supervisor();
        command.args(arguments).args(["--socket".as_ref(), self.control_socket().as_os_str()]);
        command.output().expect("the command can be run")
    }

    /// Where `up` keeps its sockets, secrets and data.
    pub(crate) fn state_dir(&self) -> std::path::PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.supervisor.pid()
    }

    /// The workers that are ready, by slot.
    pub(crate) fn ready_workers(&self) -> Vec<Worker> {
        let Some(status) = self.status() else { return Vec::new() };
        let workers = status["workers"].as_array().cloned().unwrap_or_default();
        let ready = workers.iter().filter(|worker| worker["state"] == "ready");
        ready
            .map(|worker| Worker {
                id: worker["id"].as_u64().expect("an id is a number"),
                pid: u32::try_from(worker["pid"].as_u64().expect("a ready worker has a pid")).expect("pids fit"),
                restarts: worker["restarts"].as_u64().expect("restarts is a number"),
            })
            .collect()
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

    fn control_socket(&self) -> std::path::PathBuf {
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

/// The supervisor's executable with a clean environment: what the person at the keyboard has set must not decide a test.
pub(crate) fn supervisor() -> Command {
    let mut command = Command::new(Binaries::supervisor());
    for name in [
        "REDIS_URL",
        "DATABASE_URL",
        "PORT",
        "HOST",
        "WEB_CONCURRENCY",
        "RUST_LOG",
        "TRUSTED_PROXIES",
        "XDG_RUNTIME_DIR",
    ] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").current_dir(std::env::temp_dir());
    command
}

/// Runs a supervisor command that is to end by itself.
pub(crate) fn run(directory: &Path, arguments: &[&str]) -> std::process::Output {
    supervisor()
        .current_dir(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the supervisor can be run")
}

fn collect(pipe: impl std::io::Read + Send + 'static, output: &Arc<Mutex<String>>) {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut output = output.lock().expect("nobody panics while holding the output");
            output.push_str(&line);
            output.push('\n');
        }
    });
}
