//! `supervisor completions`.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::arguments::{Arguments, Completions};
use crate::exit::{Exit, Failure};

pub(crate) fn run(completions: &Completions) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Arguments::command(), "supervisor", &mut script);
    // A reader who has left is no error.
    let _ = io::stdout().write_all(&script);
    Ok(Exit::Done)
}
