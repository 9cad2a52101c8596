//! The worker's executable, and what it sees of Redis and the database.

use config::Settings;
use serde::Deserialize;

use super::check::{Check, SCHEMA};
use crate::exit::Failure;
use crate::worker::Worker;

/// What `worker doctor --json` prints.
#[derive(Deserialize)]
struct Document {
    schema: String,
    checks: Vec<Check>,
}

pub(super) fn examine(settings: &Settings) -> Vec<Check> {
    // What it logs on the way would stand among the results.
    let mut silent = settings.clone();
    "off".clone_into(&mut silent.log.level);
    let (worker, version) = match version(&silent) {
        Ok(found) => found,
        Err(failure) => {
            return vec![Check::error("worker.executable", reason(&failure), "install the worker beside this program")];
        }
    };
    let mut checks = vec![
        Check::ok("worker.executable", worker.executable().display()),
        same_version(version.strip_prefix("worker ").unwrap_or(&version)),
    ];
    checks.extend(ask(&worker));
    checks
}

fn version(settings: &Settings) -> Result<(Worker, String), Failure> {
    let worker = Worker::new(None, settings)?;
    let version = worker.ask(&["--version"])?;
    Ok((worker, version))
}

fn same_version(found: &str) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    if found == own {
        return Check::ok("worker.version", "the worker is this version");
    }
    let summary = format!("the worker is version {found}, and this is {own}");
    Check::warning("worker.version", summary, "install both from one release")
}

fn ask(worker: &Worker) -> Vec<Check> {
    let broken = |summary: String| {
        vec![Check::error(
            "worker.doctor",
            summary,
            format!("see what it says: {} doctor", worker.executable().display()),
        )]
    };
    let answer = match worker.ask(&["doctor", "--json"]) {
        Ok(answer) => answer,
        Err(failure) => return broken(reason(&failure)),
    };
    match serde_json::from_str::<Document>(&answer) {
        Ok(document) if document.schema == SCHEMA => document.checks,
        Ok(document) => broken(format!("the worker answers with {}", document.schema)),
        Err(error) => broken(format!("the worker's answer is not understood: {error}")),
    }
}

/// A worker that fails says why on stderr by itself.
fn reason(failure: &Failure) -> String {
    if failure.message.is_empty() {
        return format!("the worker ended with exit code {}", failure.exit.code());
    }
    failure.message.clone()
}
