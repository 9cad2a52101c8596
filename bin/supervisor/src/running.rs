//! What `up` and `start` share: from settings to a supervisor that lives until it is told to end.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use config::{Loaded, LogFormat, Settings};
use supervise::status::Status;
use supervise::system::{Caller, PidFile};
use supervise::{AuxiliaryProcess, Handover, Hooks, ListenAddress, LogFiles, Program, Recycling, Spec, Supervisor};

use crate::arguments::{Global, Run};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings::{self, control_socket, log_directory};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is to run, as all sources of settings say together at one moment.
pub(crate) struct Plan {
    pub(crate) loaded: Loaded,
    pub(crate) spec: Spec,
}

/// What is to run from a reload on: flags and environment are those of the start, the file is read anew, and the argument
/// names another executable for the workers. The error is for people, with the place of each mistake.
pub(crate) type Respec = Box<dyn Fn(Option<&Path>) -> Result<Spec, String>>;

/// Whoever waits in a terminal until everything is ready, and the place of the log that they cannot see there.
pub(crate) struct Waiting {
    pub(crate) caller: Caller,
    pub(crate) log: Option<PathBuf>,
}

/// The same steps that led to the start's plan, for reloads.
pub(crate) fn respec(plan: impl Fn(Option<&Path>) -> Result<Plan, Failure> + 'static) -> Respec {
    Box::new(move |binary| plan(binary).map(|plan| plan.spec).map_err(|failure| failure.message))
}

/// What the supervisor is to do, as far as the settings say. The same settings ask for the same number of workers each
/// time, whatever has become of the cores since `usable_cores` was looked up.
pub(crate) fn spec(global: &Global, settings: &Settings, program: Program, usable_cores: u32) -> Result<Spec, Failure> {
    let wanted = &settings.supervisor;
    let is_own = matches!(program, Program::Own { .. });
    let mut spec = Spec::new(program, control_socket(global, settings));
    spec.workers = wanted.workers.on(usable_cores);
    spec.listen = wanted.listen.iter().map(listen_address).collect();
    spec.admin_listen = is_own.then_some(wanted.admin_listen);
    spec.settings = settings.to_json().into_bytes();
    spec.user = wanted.user.clone();
    spec.processes = processes(settings);
    spec.kill_timeout = wanted.kill_timeout;
    spec.ready_timeout = wanted.ready_timeout;
    spec.min_uptime = wanted.min_uptime;
    spec.canary = wanted.canary;
    spec.hang_timeout = wanted.hang_timeout;
    spec.recycling = recycling(settings)?;
    spec.cpu_affinity = wanted.cpu_affinity;
    spec.log_files = log_files(settings);
    spec.log_json = settings.log.format == LogFormat::Json;
    spec.version = VERSION.to_owned();
    Ok(spec)
}

/// How many cores this process may use; at least 1.
pub(crate) fn usable_cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

/// Says what a start should not keep to itself: warnings, and the number of workers where it was not given.
pub(crate) fn explain(plan: &Plan, usable_cores: u32, output: &Output) {
    settings::warn(&plan.loaded, output);
    if !matches!(plan.loaded.settings.supervisor.workers, config::Workers::Count(_)) {
        let workers = plan.spec.workers;
        output.talk(format_args!("{usable_cores} usable cores, so {workers} workers (--workers N changes that)"));
    }
}

/// The pid file, if one is wanted.
pub(crate) fn pid_file(run: &Run) -> Result<Option<PidFile>, Failure> {
    Ok(run.pid_file.as_deref().map(PidFile::create).transpose()?)
}

/// Goes on in the place of the program that ran in this process before, or shows that it could.
///
/// Only a rehearsal looks at the configuration: when it matters, the workers are there already, and nothing may keep this
/// process from looking after them.
pub(crate) fn go_on(
    handover: Handover,
    planner: impl Fn(Option<&Path>) -> Result<Plan, Failure> + 'static,
) -> Result<Exit, Failure> {
    if handover.is_rehearsal() {
        planner(None)?;
    }
    let Some(resumed) = handover.resume()? else { return Ok(Exit::Done) };
    let hooks = Hooks { on_ready: Box::new(|_| String::new()), respec: respec(planner) };
    Ok(Exit::Code(resumed.run(VERSION, hooks)?.exit_code()))
}

/// Runs until the end. Whoever waits in a terminal is let go as soon as everything is ready.
pub(crate) fn run(
    supervisor: Supervisor,
    waiting: Option<Waiting>,
    on_ready: impl FnOnce(&Status) -> String,
    respec: Respec,
) -> Result<Exit, Failure> {
    let waiting = Rc::new(Cell::new(waiting));
    let on_ready = {
        let waiting = Rc::clone(&waiting);
        move |status: &Status| {
            if let Some(Waiting { caller, .. }) = waiting.take() {
                caller.release();
            }
            on_ready(status)
        }
    };
    let outcome = supervisor.run(Hooks { on_ready: Box::new(on_ready), respec })?;
    let Some(Waiting { log, .. }) = waiting.take() else { return Ok(Exit::Code(outcome.exit_code())) };
    // Nobody has been told anything yet, and even a clean end is not what they asked for.
    let place = log.map(|directory| format!("; the log is in {}", directory.display())).unwrap_or_default();
    let message = format!("the supervisor ended before all workers were ready{place}");
    Err(Failure::new(Exit::Code(outcome.exit_code().max(Exit::Failed.code())), message))
}

fn processes(settings: &Settings) -> Vec<AuxiliaryProcess> {
    let mut processes = Vec::new();
    for process in &settings.supervisor.processes {
        let words = || process.command.iter().map(|word| OsString::from(word.as_str()));
        for (index, name) in process.instances().into_iter().enumerate() {
            processes.push(AuxiliaryProcess {
                name,
                program: words().next().unwrap_or_default(),
                args: words().skip(1).collect(),
                env: vec![("PROCESS_ID".into(), index.to_string().into())],
                notifies: false,
            });
        }
    }
    processes
}

fn recycling(settings: &Settings) -> Result<Recycling, Failure> {
    let wanted = &settings.supervisor;
    let schedule = wanted.cron.as_ref().map(|cron| cron.as_str().parse()).transpose();
    Ok(Recycling {
        max_memory: Some(wanted.max_memory.bytes()).filter(|&bytes| bytes > 0),
        max_requests: Some(u64::from(wanted.max_requests)).filter(|&requests| requests > 0),
        max_age: Some(wanted.max_age).filter(|&age| age > Duration::ZERO),
        schedule: schedule.map_err(|reason: String| Failure::new(Exit::Misconfigured, reason))?,
    })
}

fn log_files(settings: &Settings) -> Option<LogFiles> {
    settings.log.files.then(|| LogFiles {
        directory: log_directory(settings),
        max_bytes: settings.log.file_size.bytes(),
        count: settings.log.file_count,
    })
}

fn listen_address(address: &config::ListenAddress) -> ListenAddress {
    match address {
        config::ListenAddress::Tcp(address) => ListenAddress::Tcp(*address),
        config::ListenAddress::Unix(path) => ListenAddress::Unix(path.clone()),
    }
}

#[cfg(test)]
mod tests;
