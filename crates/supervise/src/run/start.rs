//! From what a supervisor is asked to run to a running one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::launcher::Launcher;
use super::{DurableState, Holdings, Reloads};
use crate::clients::Clients;
use crate::fleet::{Event, Fleet, Readiness, Rules};
use crate::log_writer::{LogSettings, LogWriter};
use crate::metrics::Totals;
use crate::sockets::{FIRST_GENERATION, Sockets};
use crate::status::Status;
use crate::system::{ActivatedSocket, PidFile};
use crate::{Error, Outcome, Program, Spec, StateLock};

/// Workers that report every second get no new connections after this long without a word.
const SILENCE_TOLERATED: Duration = Duration::from_millis(1500);

/// Called once, when all workers are ready for the first time; what it returns is written to stdout as it is.
pub type OnReady<'a> = Box<dyn FnOnce(&Status) -> String + 'a>;

/// Called at each reload with the workers' executable, if one was named: what to run from now on, or what is wrong with the
/// configuration, for people.
pub type Respec<'a> = Box<dyn FnMut(Option<&Path>) -> Result<Spec, String> + 'a>;

/// What a supervisor asks of whoever starts it.
pub struct Hooks<'a> {
    /// What to say when everything is ready.
    pub on_ready: OnReady<'a>,
    /// What to run from a reload on.
    pub respec: Respec<'a>,
}

impl fmt::Debug for Hooks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// A supervisor that holds its sockets and locks and has started nothing yet.
#[derive(Debug)]
pub struct Supervisor {
    spec: Spec,
    launcher: Launcher,
    sockets: Sockets,
    clients: Clients,
    holdings: Holdings,
}

impl Supervisor {
    /// Takes the control socket and all addresses and finds all programs, or fails without a trace.
    ///
    /// Connections queue from now on. Ordinary children may be run before [`Supervisor::run`]; they inherit nothing.
    pub fn bind(mut spec: Spec) -> Result<Self, Error> {
        spec.workers = spec.workers.max(1);
        raise_descriptor_limit();
        let launcher = Launcher::new(&spec)?;
        let clients = Clients::bind(&spec.control_socket)?;
        let sockets = match ActivatedSocket::from_environment().and_then(|sockets| Sockets::bind(&spec, sockets)) {
            Ok(sockets) => sockets,
            Err(error) => {
                clients.abandon();
                return Err(error);
            }
        };
        Ok(Self { spec, launcher, sockets, clients, holdings: Holdings::default() })
    }

    /// Holds a lock until the process ends, whatever program it runs by then.
    pub fn hold(&mut self, lock: StateLock) {
        self.holdings.locks.push(lock);
    }

    /// Holds the pid file until the end.
    pub fn hold_pid_file(&mut self, pid_file: PidFile) {
        self.holdings.pid_file = Some(pid_file);
    }

    /// The addresses as they were bound, so never with port 0, in the order of [`Spec::listen`].
    pub fn addresses(&self) -> Vec<String> {
        self.sockets.addresses(FIRST_GENERATION)
    }

    /// The address of the admin listener as it was bound.
    pub fn admin_address(&self) -> Option<String> {
        self.sockets.admin_address().map(|address| address.to_string())
    }

    /// Starts everything, keeps it alive, and returns when a signal or a command has ended it and nothing runs any more.
    ///
    /// Call it from the only thread of the process: it forks. Standard output belongs to the log-writer from now on.
    pub fn run(self, hooks: Hooks<'_>) -> Result<Outcome, Error> {
        let now = Instant::now();
        let settings = LogSettings { json: self.spec.log_json, files: self.spec.log_files.clone() };
        let log =
            LogWriter::start(settings, now).map_err(|source| Error::System { what: "start the log-writer", source })?;
        let fleet = Fleet::new(rules(&self.spec), fastrand::Rng::new());
        let state = DurableState {
            spec: self.spec,
            binary: None,
            launcher: self.launcher,
            sockets: self.sockets,
            clients: self.clients,
            holdings: self.holdings,
            totals: Totals::default(),
            reloads: Reloads::default(),
            fleet,
            log,
            children: Vec::new(),
            exits: Vec::new(),
            started: now,
            upgrade_for: None,
        };
        let mut running = state.run(hooks)?;
        running.state.log.line(&format!(
            "supervisor {} (pid {}) starts",
            running.state.spec.version,
            nix::unistd::getpid()
        ));
        running.happen(Event::Start);
        Ok(running.live())
    }
}

/// The numbers that `spec` gives the fleet.
pub(super) fn rules(spec: &Spec) -> Rules {
    let is_own = matches!(spec.program, Program::Own { .. });
    let alive = Readiness::SaidOrAlive(spec.min_uptime);
    let processes = spec.processes.iter();
    Rules {
        workers: spec.workers,
        worker_readiness: if is_own { Readiness::Said } else { alive },
        processes: processes
            .map(|process| (process.name.clone(), if process.notifies { Readiness::Said } else { alive }))
            .collect(),
        kill_timeout: spec.kill_timeout,
        ready_timeout: spec.ready_timeout,
        canary: spec.canary,
        hang_timeout: spec.hang_timeout,
        // Our own workers report every second.
        silence_tolerated: is_own.then_some(SILENCE_TOLERATED),
        max_memory: spec.recycling.max_memory,
        max_requests: spec.recycling.max_requests,
        max_age: spec.recycling.max_age,
    }
}

/// Where this program lies, as it was found.
pub(super) fn own_executable() -> PathBuf {
    let named = || std::env::args_os().next().unwrap_or_default().into();
    std::env::current_exe().unwrap_or_else(|_| named())
}

/// Every connection costs a descriptor, and children inherit the limit.
fn raise_descriptor_limit() {
    // A limit that cannot be raised is lived with.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
