//! `supervisor db`, `limits`, `cache` and `token`: the worker's executable does them, with the settings as they are resolved here.

use config::{Assignment, Loaded};
use supervise::control::Client;

use super::up::redis;
use crate::arguments::{Cache, Db, Entry, Flush, Global, Limits, Token, Whom, WorkerBin, name_of};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings::{self, control_socket};
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

pub(crate) fn limits(global: &Global, command: &Limits, output: &Output) -> Result<Exit, Failure> {
    let (verb, whom, option) = match command {
        Limits::Ls { json, worker } => {
            let json = json.json.then_some("--json");
            let arguments: Vec<_> = ["limits", "ls"].into_iter().chain(json).collect();
            return become_worker(global, worker, &arguments, output);
        }
        Limits::Show { whom, json } => ("show", whom, if json.json { vec!["--json"] } else { Vec::new() }),
        Limits::Reset(whom) => ("reset", whom, Vec::new()),
        Limits::Block { whom, duration } => ("block", whom, vec!["--for", duration]),
        Limits::Unblock(whom) => ("unblock", whom, Vec::new()),
    };
    let Whom { key, policies, worker } = whom;
    let policies = policies.iter().flat_map(|name| ["--policy", name]);
    let arguments: Vec<_> = ["limits", verb].into_iter().chain(option).chain(policies).chain(["--", key]).collect();
    become_worker_beside(global, worker, &arguments, output)
}

/// All but the figures, which the supervisor knows.
pub(crate) fn cache(global: &Global, command: &Cache, output: &Output) -> Result<Exit, Failure> {
    let of_entry = |verb, entry: &Entry, json: bool| {
        let json = json.then_some("--json");
        let key = ["--", &entry.namespace, &entry.key];
        let arguments: Vec<_> = ["cache", verb].into_iter().chain(json).chain(key).collect();
        become_worker_beside(global, &entry.worker, &arguments, output)
    };
    match command {
        Cache::Stats(json) => super::cache::stats(global, json, output),
        Cache::Get { entry, json } => of_entry("get", entry, json.json),
        Cache::Del(entry) => of_entry("del", entry, false),
        Cache::Warm { rate, worker } => {
            become_worker_beside(global, worker, &["cache", "warm", "--rate", &rate.to_string()], output)
        }
        Cache::Flush(Flush { what, worker }) => {
            let tags = what.tags.iter().flat_map(|tag| ["--tag", tag]);
            let namespace = what.namespace.iter().flat_map(|namespace| ["--namespace", namespace]);
            let all = what.all.then_some("--all");
            let arguments: Vec<_> = ["cache", "flush"].into_iter().chain(tags).chain(namespace).chain(all).collect();
            become_worker_beside(global, worker, &arguments, output)
        }
    }
}

/// With the Redis of whatever runs here, which `up` may have brought along.
fn become_worker_beside(
    global: &Global,
    worker: &WorkerBin,
    arguments: &[&str],
    output: &Output,
) -> Result<Exit, Failure> {
    let mut sources = settings::sources(global);
    if let Some(url) = private_redis(global, &config::load(&sources)?) {
        sources.defaults.push(Assignment::new("redis.url", url, "up"));
    }
    become_worker_with(&settings::load(&sources, output)?, worker, arguments)
}

fn private_redis(global: &Global, loaded: &Loaded) -> Option<String> {
    let status = Client::connect(&control_socket(global, &loaded.settings)).ok()?.status().ok()?;
    redis::of_running(loaded, &status)
}

fn become_worker(global: &Global, worker: &WorkerBin, arguments: &[&str], output: &Output) -> Result<Exit, Failure> {
    become_worker_with(&settings::load(&settings::sources(global), output)?, worker, arguments)
}

fn become_worker_with(loaded: &Loaded, worker: &WorkerBin, arguments: &[&str]) -> Result<Exit, Failure> {
    settings::prepare_state(loaded)?;
    let worker = Worker::new(worker.worker_bin.as_deref(), &loaded.settings)?;
    Err(worker.exec(arguments))
}
