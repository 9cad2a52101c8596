//! The worker: one process, one thread that answers requests. This file is its life in order: arguments, settings, log, serve or one
//! verb, exit code.

mod arguments;
mod divided;
mod exit;
mod link;
mod serve;
mod settings;
mod signals;
mod surroundings;
mod verbs;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use supervise::worker_side::{Inherited, backtrace_on_abort, set_process_name};
use tokio::runtime::LocalOptions;

use crate::arguments::Arguments;
use crate::exit::{FAILED, Failure};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // The log may not have been set up yet, or may be another process's.
            report(&error);
            exit::code_of(&error)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let settings = settings::load(&arguments.settings)?;
    let inherited = Inherited::from_environment().context("what the supervisor handed over cannot be used")?;
    let worker_id = inherited.as_ref().map(|inherited| inherited.worker_id);
    let _log = telemetry::init(&settings::log(&settings, worker_id)).map_err(Failure::configuration)?;
    if let Some(command) = arguments.command {
        return verbs::run(command, &settings);
    }
    let inherited =
        inherited.ok_or_else(|| Failure::usage("no supervisor handed over a socket; start it with `supervisor up`"))?;
    set_process_name(&format!("worker {}", inherited.worker_id)).context("cannot set the name of the process")?;
    backtrace_on_abort().context("cannot handle SIGABRT")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let report = runtime.context("cannot start the runtime")?.block_on(serve::serve(&settings, inherited))?;
    Ok(if report.cut == 0 { 0 } else { FAILED })
}

#[allow(clippy::print_stderr, reason = "the last words of a process that may have no log")]
fn report(error: &anyhow::Error) {
    eprintln!("worker: {error:#}");
}
