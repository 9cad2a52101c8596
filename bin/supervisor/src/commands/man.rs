//! `supervisor man`.

use crate::arguments::Man;
use crate::exit::{Exit, Failure};
use crate::output::Output;

pub(crate) fn run(_man: &Man, _output: &Output) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Code(70), "not built yet"))
}
