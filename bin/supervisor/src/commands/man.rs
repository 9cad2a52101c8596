//! `supervisor man`.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;

use crate::arguments::{Arguments, Man};
use crate::exit::{Exit, Failure};
use crate::output::Output;

pub(crate) fn run(man: &Man, output: &Output) -> Result<Exit, Failure> {
    match &man.directory {
        None => {
            let mut page = Vec::new();
            let written = clap_mangen::Man::new(Arguments::command()).render(&mut page);
            written.map_err(|error| Failure::new(Exit::Code(70), error))?;
            output.result(String::from_utf8_lossy(&page).trim_end());
        }
        Some(directory) => {
            write_all(directory).map_err(|error| {
                Failure::new(Exit::CannotCreate, format!("cannot write to {}: {error}", directory.display()))
            })?;
            output.talk(format_args!("wrote the pages to {}", directory.display()));
        }
    }
    Ok(Exit::Done)
}

fn write_all(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Arguments::command(), directory)
}
