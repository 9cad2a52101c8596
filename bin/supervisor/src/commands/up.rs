//! `supervisor up`: everything by default, for a first look and for development.

pub(super) mod redis;
mod welcome;

use std::path::Path;
use std::time::Duration;

use config::{Assignment, Loaded, Origin, Sources};
use supervise::control::Client;
use supervise::status::SupervisorState;
use supervise::{AuxiliaryProcess, Error, Handover, Program, StateLock, Supervisor};

use crate::arguments::{Global, Seed, Up, name_of};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::running::{self, Plan};
use crate::settings::{self, control_socket};
use crate::worker::Worker;

/// How much longer than its drain an older `up` may take to be gone.
const LEAVING_TAKES: Duration = Duration::from_secs(5);

pub(crate) fn run(global: &Global, up: &Up, output: &Output) -> Result<Exit, Failure> {
    let usable_cores = running::usable_cores();
    let planner = planner(global, settings::running_sources(global, &up.run), up, usable_cores);
    if let Some(handover) = Handover::from_environment()? {
        return running::go_on(handover, planner);
    }
    let plan = planner(None)?;
    running::explain(&plan, usable_cores, output);
    let settings = &plan.loaded.settings;
    let lock = lock(global, &plan.loaded, output)?;
    let pid_file = running::pid_file(&up.run)?;
    let mut supervisor = Supervisor::bind(plan.spec)?;
    supervisor.hold(lock);
    pid_file.into_iter().for_each(|file| supervisor.hold_pid_file(file));

    let worker = Worker::new(up.run.worker_bin.as_deref(), settings)?;
    worker.run(&["db", "migrate"])?;
    if up.seed != Seed::None {
        worker.run(&["db", "seed", &name_of(&up.seed), "--if-empty"])?;
    }
    let demo = welcome::Demo {
        token: worker.ask(&["token", "--role", "admin", "--hours", "24"])?,
        product: worker.ask_if_there(&["db", "sample"]),
        admin: supervisor.admin_address(),
        state_dir: settings.supervisor.state_dir.clone(),
        control_socket: control_socket(global, settings),
    };
    let respec = running::respec(planner);
    running::run(supervisor, None, |status| welcome::text(status, &demo), respec)
}

/// From the sources of settings to what is to run, any number of times.
fn planner(
    global: &Global,
    sources: Sources,
    up: &Up,
    usable_cores: u32,
) -> impl Fn(Option<&Path>) -> Result<Plan, Failure> + use<> {
    let (global, worker_bin) = (global.clone(), up.run.worker_bin.clone());
    move |binary| {
        let loaded = load(sources.clone())?;
        let settings = &loaded.settings;
        let redis = private_redis(&loaded)?;
        let worker = Worker::new(binary.or(worker_bin.as_deref()), settings)?;
        let state = settings::prepare_state(&loaded)?;
        let program = Program::Own { executable: worker.executable().to_owned(), args: Vec::new() };
        let mut spec = running::spec(&global, settings, program, usable_cores)?;
        if let Some(redis) = redis {
            state.create_for_workers(&redis::directory(&settings.supervisor.state_dir))?;
            spec.processes.insert(0, redis);
        }
        Ok(Plan { loaded, spec })
    }
}

/// The settings, with the defaults that make `up` work without any configuration.
fn load(mut sources: Sources) -> Result<Loaded, Failure> {
    sources.defaults = vec![
        Assignment::new("supervisor.listen", "127.0.0.1:8080", "up"),
        Assignment::new("http.expose_worker", "true", "up"),
    ];
    // Where the private Redis lives depends on the state directory, which any source may set.
    let state_dir = config::load(&sources)?.settings.supervisor.state_dir;
    let state_dir = std::path::absolute(&state_dir)
        .map_err(|error| Failure::new(Exit::CannotCreate, format!("cannot use {}: {error}", state_dir.display())))?;
    sources.defaults.push(Assignment::new("redis.url", redis::url(&state_dir), "up"));
    let mut loaded = config::load(&sources)?;
    loaded.settings.supervisor.state_dir = state_dir;
    Ok(loaded)
}

/// The private Redis, unless the user has named one.
fn private_redis(loaded: &Loaded) -> Result<Option<AuxiliaryProcess>, Failure> {
    if !matches!(loaded.origin("redis.url"), Origin::Command(_)) {
        return Ok(None);
    }
    let supervisor = &loaded.settings.supervisor;
    if supervisor.processes.iter().any(|process| process.instances().iter().any(|name| name == redis::NAME)) {
        let message =
            "a process of yours is named `redis`, as the private Redis is: name it otherwise, or set REDIS_URL";
        return Err(Failure::new(Exit::Misconfigured, message));
    }
    redis::private(&supervisor.state_dir).map(Some)
}

/// The sole right to the state directory. An older `up` that is draining is waited for; one that runs is not.
fn lock(global: &Global, loaded: &Loaded, output: &Output) -> Result<StateLock, Failure> {
    let settings = &loaded.settings;
    let path = settings.supervisor.state_dir.join("up.lock");
    match StateLock::try_acquire(&path) {
        Err(Error::AlreadyRunning { pid, .. }) if is_serving(&control_socket(global, settings), pid) => {
            let message = format!(
                "`supervisor up` runs in {} already{}; `supervisor stop` ends it",
                settings.supervisor.state_dir.display(),
                pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
            );
            Err(Failure::new(Exit::Busy, message))
        }
        Err(Error::AlreadyRunning { .. }) => {
            let patience = settings.supervisor.kill_timeout + LEAVING_TAKES;
            let waiting = |pid: Option<i32>| {
                let who = pid.map_or_else(|| "the one before".to_owned(), |pid| format!("pid {pid}"));
                output.talk(format_args!("waiting for {who} to finish"));
            };
            Ok(StateLock::acquire(&path, patience, waiting)?)
        }
        result => Ok(result?),
    }
}

/// Whether process `pid` answers at the control socket and is not about to end.
fn is_serving(socket: &Path, pid: Option<i32>) -> bool {
    let status = Client::connect(socket).and_then(|mut client| client.status());
    status
        .is_ok_and(|status| Some(status.supervisor.pid) == pid && status.supervisor.state != SupervisorState::Draining)
}

#[cfg(test)]
mod tests;
