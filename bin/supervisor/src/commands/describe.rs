//! `supervisor describe`.

use supervise::control::Client;

use crate::arguments::{Describe, Global};
use crate::describe;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings::{self, control_socket};

pub(crate) fn run(global: &Global, arguments: &Describe, output: &Output) -> Result<Exit, Failure> {
    let loaded = settings::load(&settings::sources(global), output)?;
    let answer = Client::connect(&control_socket(global, &loaded.settings))?.describe(arguments.id)?;
    let description = answer.map_err(|refusal| Failure::new(Exit::Code(refusal.code), refusal.message))?;
    if arguments.json.json {
        let document = serde_json::to_string(&description).map_err(|error| Failure::new(Exit::Code(70), error))?;
        output.result(document);
    } else {
        output.result(describe::render(&description, output, jiff::Timestamp::now()));
    }
    Ok(Exit::Done)
}
