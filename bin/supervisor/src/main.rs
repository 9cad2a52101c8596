#![doc = include_str!("../README.md")]

mod arguments;
mod commands;
mod describe;
#[cfg(test)]
mod examples;
mod exit;
mod figures;
mod output;
mod running;
mod settings;
mod signals;
mod table;
mod top;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::of_this_process(&arguments.global);
    match commands::run(&arguments, &output) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                output.error(&failure.message);
            }
            failure.exit.into()
        }
    }
}
