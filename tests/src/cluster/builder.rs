//! What to start, and how its command line is put together.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use test_support::{Binaries, GuardedChild, eventually, free_port, http};

use super::{Cluster, START, supervisor_by};

/// Whoever measures latencies has the machine for himself; everybody else shares it.
static MACHINE: RwLock<()> = RwLock::new(());

/// A share of the machine, or all of it. A test's second cluster runs beside the first: it would wait for itself otherwise.
pub(super) enum Share {
    Some {
        _guard: RwLockReadGuard<'static, ()>,
    },
    All {
        _guard: RwLockWriteGuard<'static, ()>,
    },
    /// That of the cluster beside which it runs.
    Beside,
}

/// What to start. The defaults are `supervisor up` with 2 workers, the small seed, a private Redis and no limits.
pub(crate) struct Builder {
    workers: u32,
    configuration: String,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    program: Vec<String>,
    executable: PathBuf,
    activated: Option<TcpListener>,
    is_alone: bool,
    is_beside: bool,
}

/// Everything a supervisor is started with, so that it can be started again.
pub(super) struct Launch {
    builder: Builder,
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Where configuration and state lie.
    directory: PathBuf,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            workers: 2,
            configuration: String::new(),
            environment: Vec::new(),
            arguments: Vec::new(),
            program: Vec::new(),
            executable: Binaries::supervisor(),
            activated: None,
            is_alone: false,
            is_beside: false,
        }
    }

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

    /// Starts this program in the place of the worker: `supervisor start -- PROGRAM ARGS`.
    pub(crate) fn program(mut self, words: &[&str]) -> Self {
        self.program = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Runs a copy of the supervisor, which a test can replace.
    pub(crate) fn executable(mut self, path: &Path) -> Self {
        self.executable = path.to_owned();
        self
    }

    /// Hands over a socket that is bound already, as systemd does.
    pub(crate) fn activated(mut self, listener: TcpListener) -> Self {
        self.activated = Some(listener);
        self
    }

    /// Keeps all other clusters of these tests away for as long as this one runs.
    pub(crate) fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// Runs it beside another cluster of the same test, as another host.
    pub(crate) fn beside(mut self, _other: &Cluster) -> Self {
        self.is_beside = true;
        self
    }

    /// Starts it and waits until every worker is ready.
    pub(crate) fn start(self) -> Cluster {
        let cluster = self.spawn();
        cluster.wait_until_ready();
        cluster
    }

    /// Starts it and waits for nothing.
    pub(crate) fn spawn(self) -> Cluster {
        let share = self.share_of_machine();
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let passable = Permissions::from_mode(0o711);
        fs::set_permissions(directory.path(), passable).expect("the workers' user may have to pass through it");
        let address = match &self.activated {
            Some(listener) => listener.local_addr().expect("it is bound"),
            None => SocketAddr::from(([127, 0, 0, 1], free_port())),
        };
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let launch = Launch { builder: self, address, admin, directory: directory.path().to_owned() };
        launch.configure(&launch.builder.configuration);
        let output = Arc::new(Mutex::new(String::new()));
        let supervisor = launch.run(&output);
        Cluster { supervisor, directory, address, admin, output, launch, _share: share }
    }

    fn share_of_machine(&self) -> Share {
        // A test that failed in between has taken nothing away from the others.
        if self.is_beside {
            Share::Beside
        } else if self.is_alone {
            Share::All { _guard: MACHINE.write().unwrap_or_else(PoisonError::into_inner) }
        } else {
            Share::Some { _guard: MACHINE.read().unwrap_or_else(PoisonError::into_inner) }
        }
    }
}

impl Launch {
    /// Writes the configuration file.
    pub(super) fn configure(&self, toml: &str) {
        fs::write(self.file(), toml).expect("the configuration can be written");
    }

    pub(super) fn file(&self) -> PathBuf {
        self.directory.join("bellwether.toml")
    }

    /// Starts a supervisor whose output is added to `output`.
    pub(super) fn run(&self, output: &Arc<Mutex<String>>) -> GuardedChild {
        let mut command = self.command();
        let mut supervisor = GuardedChild::spawn(&mut command).expect("the supervisor can be started");
        collect(supervisor.child().stdout.take().expect("stdout is piped"), output);
        collect(supervisor.child().stderr.take().expect("stderr is piped"), output);
        supervisor
    }

    fn command(&self) -> Command {
        let builder = &self.builder;
        let mut command = match &builder.activated {
            Some(listener) => activated(&builder.executable, listener),
            None => {
                let mut command = supervisor_by(&builder.executable);
                command.stdin(Stdio::null());
                command
            }
        };
        command
            .arg(if builder.program.is_empty() { "up" } else { "start" })
            .args(["--config".as_ref(), self.file().as_os_str()])
            .args(["--state-dir".as_ref(), self.directory.join("state").as_os_str()])
            .args(["--listen", &self.address.to_string(), "--admin-listen", &self.admin.to_string()])
            .args(["--workers", &builder.workers.to_string()])
            .args(&builder.arguments)
            .envs(builder.environment.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if builder.executable != Binaries::supervisor() && builder.program.is_empty() {
            // Beside the copy lies no worker.
            command.arg("--worker-bin").arg(Binaries::worker());
        }
        if !builder.program.is_empty() {
            command.arg("--").args(&builder.program);
        }
        command
    }
}

/// The supervisor with a listener as its descriptor 3: a shell puts it there, and has the process id that `LISTEN_PID` has to name.
fn activated(executable: &Path, listener: &TcpListener) -> Command {
    let mut shell = supervisor_by("sh");
    let listener = listener.try_clone().expect("a descriptor is left");
    shell.args(["-c", r#"export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<&0 </dev/null"#, "sh"]);
    shell.arg(executable).stdin(OwnedFd::from(listener));
    shell
}

impl Cluster {
    pub(super) fn wait_until_ready(&self) {
        eventually(START, || {
            if let Some(line) = self.died() {
                panic!("the supervisor ended at once: {line}\n{}", self.output());
            }
            let ready = http::get_blocking(self.address, "/readyz").is_ok_and(|answer| answer.status == 200);
            ready && self.ready_workers().len() == self.wanted_workers()
        });
    }
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
