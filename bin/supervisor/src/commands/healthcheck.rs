//! `supervisor healthcheck`: whether the service of the running supervisor is ready, told by the exit code.

mod probe;

use std::collections::BTreeSet;

use supervise::control::Client;
use supervise::status::{State, Status};

use self::probe::Answer;
use crate::arguments::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings::{self, control_socket};

pub(crate) fn run(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let loaded = settings::load(&settings::sources(global), output)?;
    let status = Client::connect(&control_socket(global, &loaded.settings))?.status()?;
    let Some(address) = status.supervisor.listen.first() else {
        return all_ready(&status);
    };
    match probe::get(address, "/readyz") {
        Ok(Answer::Status(200..300)) => Ok(Exit::Done),
        // Another program than our worker: nobody but the supervisor knows.
        Ok(Answer::Status(404) | Answer::NotHttp) => all_ready(&status),
        Ok(Answer::Status(code)) => unhealthy(format!("{address} answers GET /readyz with {code}")),
        Err(error) => unhealthy(format!("{address} does not answer GET /readyz: {error}")),
    }
}

fn all_ready(status: &Status) -> Result<Exit, Failure> {
    let ready = status.workers.iter().filter(|worker| worker.state == State::Ready);
    // A slot has several workers while one of them is being replaced.
    let slots: BTreeSet<_> = ready.map(|worker| worker.id).collect();
    let wanted = status.supervisor.workers_wanted;
    if slots.len() >= wanted as usize {
        return Ok(Exit::Done);
    }
    unhealthy(format!("{} of {wanted} workers are ready", slots.len()))
}

fn unhealthy(message: String) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, message))
}
