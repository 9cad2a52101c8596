//! `supervisor db` and `supervisor token`: the worker's executable does them, with the settings as they are resolved here.

use crate::arguments::{Db, Global, Token, WorkerBin, name_of};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings;
use crate::worker::Worker;

pub(crate) fn db(global: &Global, command: &Db, output: &Output) -> Result<Exit, Failure> {
    let size;
    let (verb, option, worker) = match command {
        Db::Migrate(worker) => (vec!["db", "migrate"], None, worker),
        Db::Status { json, worker } => (vec!["db", "status"], json.json.then_some("--json"), worker),
        Db::Rollback { yes, worker } => (vec!["db", "rollback"], yes.then_some("--yes"), worker),
        Db::Seed { size: wanted, if_empty, worker } => {
            size = name_of(wanted);
            (vec!["db", "seed", &size], if_empty.then_some("--if-empty"), worker)
        }
    };
    let arguments: Vec<_> = verb.into_iter().chain(option).collect();
    become_worker(global, worker, &arguments, output)
}

pub(crate) fn token(global: &Global, token: &Token, output: &Output) -> Result<Exit, Failure> {
    let (role, hours) = (name_of(&token.role), token.hours.to_string());
    let mut arguments = vec!["token", "--role", &role, "--hours", &hours];
    if let Some(vendor) = &token.vendor {
        arguments.extend(["--vendor", vendor]);
    }
    become_worker(global, &token.worker, &arguments, output)
}

fn become_worker(global: &Global, worker: &WorkerBin, arguments: &[&str], output: &Output) -> Result<Exit, Failure> {
    let loaded = settings::load(&settings::sources(global), output)?;
    settings::prepare_state(&loaded)?;
    let worker = Worker::new(worker.worker_bin.as_deref(), &loaded.settings)?;
    Err(worker.exec(arguments))
}
