//! `supervisor ping`.

use serde_json::json;
use supervise::control::Client;

use crate::arguments::{Global, Json};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings::{self, control_socket};

pub(crate) fn run(global: &Global, format: &Json, output: &Output) -> Result<Exit, Failure> {
    let loaded = settings::load(&settings::sources(global), output)?;
    let (pid, version) = Client::connect(&control_socket(global, &loaded.settings))?.ping()?;
    if format.json {
        output.result(json!({ "schema": "bellwether.ping/v1", "pid": pid, "version": version }));
    } else {
        output.result(format_args!("supervisor {version} answers, pid {pid}"));
    }
    Ok(Exit::Done)
}
