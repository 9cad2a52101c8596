//! `supervisor stop`.

use supervise::control::Request;

use super::change;
use crate::arguments::{Global, Stop};
use crate::exit::{Exit, Failure};
use crate::output::Output;

pub(crate) fn run(global: &Global, stop: &Stop, output: &Output) -> Result<Exit, Failure> {
    change::command(global, &Request::Stop { now: stop.now }, "stopped", output)
}
