//! `supervisor start`: production.

use std::path::Path;

use config::{Loaded, Origin, Sources};
use supervise::system::{Caller, Detached, Started, detach};
use supervise::{Handover, Program, Supervisor};

use crate::arguments::{Global, Start};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::running::{self, Plan, Waiting};
use crate::settings;
use crate::worker::{Database, Worker};

pub(crate) fn run(global: &Global, start: &Start, output: &Output) -> Result<Exit, Failure> {
    if let Some(handover) = Handover::from_environment()? {
        let sources = settings::running_sources(global, &start.run);
        return running::go_on(handover, planner(global, sources, start, running::usable_cores()));
    }
    if !start.detach {
        return supervise(global, start, None, output);
    }
    match detach()? {
        Detached::Supervisor(caller) => supervise(global, start, Some(caller), output),
        Detached::Command(started) => report(started, output),
    }
}

fn supervise(global: &Global, start: &Start, caller: Option<Caller>, output: &Output) -> Result<Exit, Failure> {
    let usable_cores = running::usable_cores();
    let planner = planner(global, settings::running_sources(global, &start.run), start, usable_cores);
    let plan = planner(None)?;
    running::explain(&plan, usable_cores, output);
    if caller.is_some() && plan.spec.log_files.is_none() {
        output.warn("without a terminal and without log files (log.files), nobody will see what workers write");
    }
    let log = plan.spec.log_files.as_ref().map(|files| files.directory.clone());
    let waiting = caller.map(|caller| Waiting { caller, log });
    let pid_file = running::pid_file(&start.run)?;
    let mut supervisor = Supervisor::bind(plan.spec)?;
    pid_file.into_iter().for_each(|file| supervisor.hold_pid_file(file));
    if start.program.is_empty() {
        bring_up_to_date(&plan.loaded, start)?;
    }
    running::run(supervisor, waiting, |_| String::new(), running::respec(planner))
}

/// From the sources of settings to what is to run, any number of times.
fn planner(
    global: &Global,
    sources: Sources,
    start: &Start,
    usable_cores: u32,
) -> impl Fn(Option<&Path>) -> Result<Plan, Failure> + use<> {
    let (global, command, worker_bin) = (global.clone(), start.program.clone(), start.run.worker_bin.clone());
    move |binary| {
        let loaded = config::load(&sources)?;
        let settings = &loaded.settings;
        let program = match command.split_first() {
            Some((program, _)) if binary.is_some() => {
                let message = format!("there is no worker to replace: {} runs in its place", program.display());
                return Err(Failure::new(Exit::Usage, message));
            }
            Some((program, args)) => Program::Foreign { program: program.clone(), args: args.to_vec() },
            None => {
                let worker = Worker::new(binary.or(worker_bin.as_deref()), settings)?;
                settings::prepare_state(&loaded)?;
                Program::Own { executable: worker.executable().to_owned(), args: Vec::new() }
            }
        };
        let spec = running::spec(&global, settings, program, usable_cores)?;
        Ok(Plan { loaded, spec })
    }
}

fn bring_up_to_date(loaded: &Loaded, start: &Start) -> Result<(), Failure> {
    let worker = Worker::new(start.run.worker_bin.as_deref(), &loaded.settings)?;
    match worker.database()? {
        Database::UpToDate => Ok(()),
        Database::Behind if start.migrate => worker.run(&["db", "migrate"]),
        Database::Behind => {
            // The default database is the user's own, so the other command has to know of the flag.
            let user = loaded.settings.supervisor.user.as_ref();
            let user = user.filter(|_| matches!(loaded.origin("supervisor.user"), Origin::Flag(_)));
            let set = user.map(|user| format!("--set supervisor.user={user} ")).unwrap_or_default();
            let message = format!(
                "the database is older than this version: run `supervisor {set}db migrate`, or start with --migrate"
            );
            Err(Failure::new(Exit::Misconfigured, message))
        }
    }
}

/// What the process in the terminal has to say about the one that left it.
fn report(started: Started, output: &Output) -> Result<Exit, Failure> {
    match started {
        Started::Ready { pid } => {
            output.result(pid);
            Ok(Exit::Done)
        }
        Started::Ended { code } => Err(Failure::told(code)),
        Started::Killed { signal } => {
            let message = format!("the supervisor was killed by signal {signal} before all workers were ready");
            Err(Failure::new(Exit::Failed, message))
        }
    }
}

#[cfg(test)]
mod tests;
