//! What `up` and `start` share: from settings to a supervisor that lives until it is told to end.

use std::fs;
use std::path::{Path, PathBuf};

use config::Settings;
use supervise::status::Status;
use supervise::{Hooks, ListenAddress, LogFiles, Program, Spec, Supervisor};

use crate::arguments::{Global, Run};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings::{control_socket, log_directory};

/// The size at which a log file is rotated.
const LOG_FILE_BYTES: u64 = 10_000_000;

/// How many log files there are per stream.
const LOG_FILES: u32 = 5;

/// What the supervisor is to do, as far as the settings say.
pub(crate) fn spec(global: &Global, settings: &Settings, program: Program, output: &Output) -> Spec {
    let wanted = &settings.supervisor;
    let is_own = matches!(program, Program::Own { .. });
    let mut spec = Spec::new(program, control_socket(global, settings));
    spec.workers = workers(settings, output);
    spec.listen = wanted.listen.iter().map(listen_address).collect();
    spec.admin_listen = is_own.then_some(wanted.admin_listen);
    spec.settings = settings.to_json().into_bytes();
    spec.user = wanted.user.clone();
    spec.kill_timeout = wanted.kill_timeout;
    spec.ready_timeout = wanted.ready_timeout;
    spec.min_uptime = wanted.min_uptime;
    spec.log_json = settings.log.format == config::LogFormat::Json;
    spec.log_files = Some(LogFiles { directory: log_directory(settings), max_bytes: LOG_FILE_BYTES, count: LOG_FILES });
    spec.version = env!("CARGO_PKG_VERSION").to_owned();
    spec
}

/// Runs until the end, with the pid file in place for as long.
pub(crate) fn run(
    supervisor: Supervisor,
    run: &Run,
    on_ready: impl FnOnce(&Status) -> String,
) -> Result<Exit, Failure> {
    let pid_file = run.pid_file.as_deref().map(PidFile::create).transpose()?;
    let respec = Box::new(|_: Option<&Path>| Err("not done yet".to_owned()));
    let outcome = supervisor.run(Hooks { on_ready: Box::new(on_ready), respec })?;
    drop(pid_file);
    Ok(Exit::Code(outcome.exit_code()))
}

/// The number of workers, with an explanation where it was not given.
fn workers(settings: &Settings, output: &Output) -> u32 {
    let usable = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    let wanted = settings.supervisor.workers;
    let workers = wanted.on(usable);
    if !matches!(wanted, config::Workers::Count(_)) {
        output.talk(format_args!("{usable} usable cores, so {workers} workers (--workers N changes that)"));
    }
    workers
}

fn listen_address(address: &config::ListenAddress) -> ListenAddress {
    match address {
        config::ListenAddress::Tcp(address) => ListenAddress::Tcp(*address),
        config::ListenAddress::Unix(path) => ListenAddress::Unix(path.clone()),
    }
}

/// A file with this process's id, gone when the process ends in order.
struct PidFile(PathBuf);

impl PidFile {
    fn create(path: &Path) -> Result<Self, Failure> {
        let written = fs::write(path, format!("{}\n", std::process::id()));
        written
            .map_err(|error| Failure::new(Exit::CannotCreate, format!("cannot create {}: {error}", path.display())))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Whoever took the file away has done our work.
        let _ = fs::remove_file(&self.0);
    }
}
