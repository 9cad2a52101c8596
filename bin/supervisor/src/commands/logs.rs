//! `supervisor logs`.

use crate::arguments::{Global, Logs};
use crate::exit::{Exit, Failure};
use crate::output::Output;

pub(crate) fn run(_global: &Global, _logs: &Logs, _output: &Output) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Code(70), "not built yet"))
}
