//! `supervisor doctor`: everything that can be found wrong without changing anything.
//!
//! The codes of the checks are promises; they are listed in the README. What needs Redis or the database is asked of the worker's
//! executable, and a check that cannot be made because another one failed is left out.

mod check;
mod fleet;
mod listening;
mod machine;
mod state_directory;
mod worker;

use config::{Assignment, Loaded, Settings};

use self::check::{Check, Severity};
use super::up::redis;
use crate::arguments::{Global, Json};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings::{self, control_socket};

pub(crate) fn run(global: &Global, format: &Json, output: &Output) -> Result<Exit, Failure> {
    let checks = examine(global)?;
    if format.json {
        output.result(check::document(&checks));
    } else {
        let is_wanted = |check: &Check| !global.quiet || check.severity >= Severity::Warning;
        check::lines(&checks, is_wanted, output).iter().for_each(|line| output.result(line));
        if !global.quiet {
            output.result(check::totals(&checks));
        }
    }
    let has_error = checks.iter().any(|check| check.severity == Severity::Error);
    Ok(if has_error { Exit::Failed } else { Exit::Done })
}

fn examine(global: &Global) -> Result<Vec<Check>, Failure> {
    let mut sources = settings::sources(global);
    let mut loaded = config::load(&sources)?;
    let (running, of_fleet) = fleet::examine(&control_socket(global, &loaded.settings));
    if let Some(url) = running.as_ref().and_then(|status| redis::of_running(&loaded, status)) {
        sources.defaults.push(Assignment::new("redis.url", url, "up"));
        loaded = config::load(&sources)?;
    }
    let settings = &loaded.settings;
    let mut checks = configuration(&loaded);
    checks.extend(of_fleet);
    checks.extend(worker::examine(settings));
    checks.extend(listening::examine(settings, running.as_ref()));
    checks.extend(machine::examine(settings, running.as_ref()));
    checks.extend(state_directory::examine(&settings.supervisor.state_dir));
    Ok(checks)
}

/// It is valid, or this command would not have come so far.
fn configuration(loaded: &Loaded) -> Vec<Check> {
    let first = match &loaded.file {
        Some(path) => Check::ok("configuration.file", format!("{} is valid", path.display())),
        None => Check::note(
            "configuration.file",
            "there is no configuration file; environment and defaults are valid",
            Some("supervisor config init"),
        ),
    };
    let warning = |warning: &config::Warning| {
        Check::warning("configuration.warning", warning, "supervisor config show --origin tells where it comes from")
    };
    let mut checks = vec![first];
    checks.extend(loaded.warnings.iter().map(warning));
    checks
}

/// How many workers there are to be on a machine with `processors` usable ones.
fn workers(settings: &Settings, processors: u32) -> u32 {
    settings.supervisor.workers.on(processors)
}
