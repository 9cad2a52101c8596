//! One file per command.

mod config;
mod ping;
mod start;
mod status;
mod stop;
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
        Command::Status(json) => status::run(global, json, output),
        Command::Ping(json) => ping::run(global, json, output),
        Command::Config(command) => config::run(global, command, output),
        Command::Db(command) => worker::db(global, command, output),
        Command::Token(token) => worker::token(global, token, output),
    }
}
