//! `supervisor start`: production.

use config::Settings;
use supervise::{Program, Supervisor};

use crate::arguments::{Global, Start};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::worker::{Database, Worker};
use crate::{running, settings};

pub(crate) fn run(global: &Global, start: &Start, output: &Output) -> Result<Exit, Failure> {
    let loaded = settings::load(&settings::running_sources(global, &start.run), output)?;
    let settings = loaded.settings;
    match start.program.split_first() {
        Some((program, args)) => {
            let program = Program::Foreign { program: program.clone(), args: args.to_vec() };
            let supervisor = Supervisor::bind(running::spec(global, &settings, program, output))?;
            running::run(supervisor, &start.run, |_| String::new())
        }
        None => run_worker(global, start, &settings, output),
    }
}

fn run_worker(global: &Global, start: &Start, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let worker = Worker::new(start.run.worker_bin.as_deref(), settings)?;
    settings::create_private_directory(&settings.supervisor.state_dir)?;
    let program = Program::Own { executable: worker.executable().to_owned(), args: Vec::new() };
    let supervisor = Supervisor::bind(running::spec(global, settings, program, output))?;
    if worker.database()? == Database::Behind {
        if !start.migrate {
            let message =
                "the database is older than this version: run `supervisor db migrate`, or start with --migrate";
            return Err(Failure::new(Exit::Misconfigured, message));
        }
        worker.run(&["db", "migrate"])?;
    }
    running::run(supervisor, &start.run, |_| String::new())
}
