//! `supervisor doctor`.

use crate::arguments::{Global, Json};
use crate::exit::{Exit, Failure};
use crate::output::Output;

pub(crate) fn run(_global: &Global, _format: &Json, _output: &Output) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Code(70), "not built yet"))
}
