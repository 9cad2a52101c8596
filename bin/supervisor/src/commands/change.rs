//! `supervisor reload`, `scale`, `restart` and `upgrade`: whatever changes what runs, and takes its time.

use supervise::control::{Client, Reply, Request};

use crate::arguments::{Global, Reload, Restart, Scale, WorkerChoice};
use crate::exit::{Exit, Failure};
use crate::figures::{harmless, harmless_lines};
use crate::output::Output;
use crate::settings::{self, control_socket};

pub(crate) fn reload(global: &Global, reload: &Reload, output: &Output) -> Result<Exit, Failure> {
    let binary = reload.binary.as_deref().map(std::path::absolute).transpose();
    let binary = binary.map_err(|error| Failure::new(Exit::Usage, error))?;
    command(global, &Request::Reload { binary }, "reloaded", output)
}

pub(crate) fn scale(global: &Global, scale: &Scale, output: &Output) -> Result<Exit, Failure> {
    command(global, &Request::Scale(scale.to), "scaled", output)
}

pub(crate) fn restart(global: &Global, restart: &Restart, output: &Output) -> Result<Exit, Failure> {
    let id = match restart.which {
        WorkerChoice::All => None,
        WorkerChoice::One(id) => Some(id),
    };
    command(global, &Request::Restart { id, hard: restart.hard }, "restarted", output)
}

pub(crate) fn upgrade(global: &Global, output: &Output) -> Result<Exit, Failure> {
    command(global, &Request::Upgrade, "upgraded", output)
}

/// Asks for `request`, tells what happens on the way, and ends as it ended.
pub(crate) fn command(global: &Global, request: &Request, done: &str, output: &Output) -> Result<Exit, Failure> {
    let loaded = settings::load(&settings::sources(global), output)?;
    for reply in Client::connect(&control_socket(global, &loaded.settings))?.command(request)? {
        match reply? {
            Reply::Progress(sentence) => output.talk(harmless(&sentence)),
            // A worker's last words may be among them.
            Reply::Failed { code, message } => return Err(Failure::new(Exit::Code(code), harmless_lines(&message))),
            _ => output.talk(done),
        }
    }
    Ok(Exit::Done)
}
