//! `supervisor service`.

use crate::arguments::{Global, Service};
use crate::exit::{Exit, Failure};
use crate::output::Output;

pub(crate) fn run(_global: &Global, _service: &Service, _output: &Output) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Code(70), "not built yet"))
}
