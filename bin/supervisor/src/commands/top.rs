//! `supervisor top`.

use crate::arguments::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;

pub(crate) fn run(_global: &Global, _output: &Output) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Code(70), "not built yet"))
}
