//! One file per command.

mod cache;
mod change;
mod completions;
mod config;
mod describe;
mod doctor;
mod healthcheck;
mod logs;
mod man;
mod ping;
mod service;
mod start;
mod status;
mod stop;
mod top;
mod up;
mod worker;

use crate::arguments::{Arguments, Command};
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Does what was asked for; the exit code of a command that ends well is its own affair.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<Exit, Failure> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Up(up) => up::run(global, up, output),
        Command::Start(start) => start::run(global, start, output),
        Command::Stop(stop) => stop::run(global, stop, output),
        Command::Status(status) => status::run(global, status, output),
        Command::Describe(describe) => describe::run(global, describe, output),
        Command::Logs(logs) => logs::run(global, logs, output),
        Command::Top => top::run(global, output),
        Command::Reload(reload) => change::reload(global, reload, output),
        Command::Scale(scale) => change::scale(global, scale, output),
        Command::Restart(restart) => change::restart(global, restart, output),
        Command::Upgrade => change::upgrade(global, output),
        Command::Doctor(json) => doctor::run(global, json, output),
        Command::Service(service) => service::run(global, service, output),
        Command::Healthcheck => healthcheck::run(global, output),
        Command::Completions(completions) => completions::run(completions),
        Command::Man(man) => man::run(man, output),
        Command::Ping(json) => ping::run(global, json, output),
        Command::Config(command) => config::run(global, command, output),
        Command::Db(command) => worker::db(global, command, output),
        Command::Limits(command) => worker::limits(global, command, output),
        Command::Cache(command) => worker::cache(global, command, output),
        Command::Token(token) => worker::token(global, token, output),
    }
}
