//! Exit codes, and which failure ends with which.

use std::process::ExitCode;

/// A failure that decides the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

/// Requests were cut, or something failed.
pub(crate) const FAILED: u8 = 1;
/// The database's tables are older than this program.
pub(crate) const BEHIND: u8 = 4;
/// The command line asks for what cannot be done.
const USAGE: u8 = 2;
/// A dependency is missing or away.
const UNAVAILABLE: u8 = 69;
/// Not to be started again: nothing but another configuration or version helps.
const CONFIGURATION: u8 = 78;

impl Failure {
    pub(crate) fn configuration(message: impl ToString) -> Self {
        Self { code: CONFIGURATION, message: message.to_string() }
    }

    pub(crate) fn failed(message: impl ToString) -> Self {
        Self { code: FAILED, message: message.to_string() }
    }

    pub(crate) fn usage(message: impl ToString) -> Self {
        Self { code: USAGE, message: message.to_string() }
    }

    pub(crate) fn unavailable(message: impl ToString) -> Self {
        Self { code: UNAVAILABLE, message: message.to_string() }
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Configuration(_) | store::Error::Schema(_) => Self::configuration(error),
            other => Self::unavailable(other),
        }
    }
}

/// The exit code of an error: that of the failure in its chain, else the plain one.
pub(crate) fn code_of(error: &anyhow::Error) -> ExitCode {
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    ExitCode::from(failure.map_or(FAILED, |failure| failure.code))
}
