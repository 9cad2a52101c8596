//! `supervisor describe`.

use crate::arguments::{Describe, Global};
use crate::exit::{Exit, Failure};
use crate::output::Output;

pub(crate) fn run(_global: &Global, _describe: &Describe, _output: &Output) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Code(70), "not built yet"))
}
