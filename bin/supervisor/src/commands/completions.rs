//! `supervisor completions`.

use std::io;

use clap::CommandFactory;

use crate::arguments::{Arguments, Completions};
use crate::exit::{Exit, Failure};

pub(crate) fn run(completions: &Completions) -> Result<Exit, Failure> {
    clap_complete::generate(completions.shell, &mut Arguments::command(), "supervisor", &mut io::stdout());
    Ok(Exit::Done)
}
