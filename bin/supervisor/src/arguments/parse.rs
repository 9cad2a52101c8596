//! From what was typed to values.

use config::Assignment;
use supervise::control::Scale;

use super::WorkerChoice;

pub(super) fn set(text: &str) -> Result<Assignment, String> {
    Assignment::from_set(text).ok_or_else(|| "expected KEY=VALUE".to_owned())
}

pub(super) fn worker(text: &str) -> Result<u32, String> {
    text.strip_prefix('w').unwrap_or(text).parse().map_err(|_| "expected a worker's number, such as 0 or w0".to_owned())
}

pub(super) fn workers(text: &str) -> Result<WorkerChoice, String> {
    if text == "all" { Ok(WorkerChoice::All) } else { worker(text).map(WorkerChoice::One) }
}

pub(super) fn source(text: &str) -> Result<String, String> {
    Ok(text.parse::<u32>().map_or_else(|_| text.to_owned(), |id| format!("w{id}")))
}

pub(super) fn scale(text: &str) -> Result<Scale, String> {
    let wrong = |_| "expected a number of workers, as 4, +2 or -1".to_owned();
    match text.strip_prefix(['+', '-']) {
        Some(_) => text.parse().map(Scale::By).map_err(wrong),
        None => text.parse().map_err(wrong).and_then(|count: u32| {
            if count == 0 {
                Err("there is at least one worker; `stop` ends them all".to_owned())
            } else {
                Ok(Scale::To(count))
            }
        }),
    }
}
