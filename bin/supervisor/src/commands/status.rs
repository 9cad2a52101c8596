//! `supervisor status`.

mod watch;

use supervise::control::Client;

use crate::arguments::{Global, Status};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings::{self, control_socket};
use crate::table;

pub(crate) fn run(global: &Global, arguments: &Status, output: &Output) -> Result<Exit, Failure> {
    let loaded = settings::load(&settings::sources(global), output)?;
    let socket = control_socket(global, &loaded.settings);
    let status = Client::connect(&socket)?.status()?;
    if arguments.watch {
        return watch::run(&socket, status, output);
    }
    if arguments.json.json {
        let document = serde_json::to_string(&status).map_err(|error| Failure::new(Exit::Code(70), error))?;
        output.result(document);
    } else {
        output.result(table::render(&status, output, jiff::Timestamp::now()));
    }
    Ok(Exit::Done)
}
