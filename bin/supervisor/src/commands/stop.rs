//! `supervisor stop`.

use supervise::control::{Client, Reply};

use crate::arguments::{Global, Stop};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings::{self, control_socket};

pub(crate) fn run(global: &Global, stop: &Stop, output: &Output) -> Result<Exit, Failure> {
    let loaded = settings::load(&settings::sources(global), output)?;
    let replies = Client::connect(&control_socket(global, &loaded.settings))?.stop(stop.now)?;
    for reply in replies {
        match reply? {
            Reply::Progress(sentence) => output.talk(sentence),
            Reply::Failed { code, message } => return Err(Failure::new(Exit::Code(code), message)),
            Reply::Done | Reply::Pong { .. } | Reply::Status(_) => output.talk("stopped"),
        }
    }
    Ok(Exit::Done)
}
