//! Exit codes, and errors that carry one.

use std::fmt::Display;
use std::process::ExitCode;

/// How the command ends. The numbers are promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what it was asked for.
    Done,
    /// It failed, or requests were cut at the end of a drain.
    Failed,
    /// It cannot be asked for like this.
    Usage,
    /// A dependency is missing or cannot be reached.
    Unavailable,
    /// A file cannot be created or an address cannot be bound.
    CannotCreate,
    /// Somebody else is at it, or no worker ever became ready.
    Busy,
    /// The configuration is invalid.
    Misconfigured,
    /// A code that another part has decided on.
    Code(u8),
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unavailable => 69,
            Self::CannotCreate => 73,
            Self::Busy => 75,
            Self::Misconfigured => 78,
            Self::Code(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// For people, possibly of several lines; empty when everything has been said already.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// Ends with a code whose reason a child has already told.
    pub(crate) fn told(code: u8) -> Self {
        Self::new(Exit::Code(code), "")
    }
}

impl From<supervise::Error> for Failure {
    fn from(error: supervise::Error) -> Self {
        Self::new(Exit::Code(error.exit_code()), error)
    }
}

impl From<supervise::control::ClientError> for Failure {
    fn from(error: supervise::control::ClientError) -> Self {
        Self::new(Exit::Code(error.exit_code()), error)
    }
}

impl From<config::Problems> for Failure {
    fn from(problems: config::Problems) -> Self {
        Self::new(Exit::Misconfigured, format_args!("the configuration is invalid\n\n{problems}"))
    }
}

/// The table in the long help.
pub(crate) const TABLE: &str = "\
Exit codes:
   0  done, also after a signal that asks to stop
   1  failed, or requests were cut at the end of a drain
   2  wrong usage
   3  no supervisor is running
   4  a reload was rolled back or timed out
  69  a dependency is missing or cannot be reached
  70  internal error
  73  a file cannot be created or an address cannot be bound
  75  busy, or no worker was ever ready
  77  not permitted
  78  the configuration is invalid";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_has_its_promised_code_and_the_table_names_it() {
        let cases = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Code(3), 3),
            (Exit::Code(4), 4),
            (Exit::Unavailable, 69),
            (Exit::CannotCreate, 73),
            (Exit::Busy, 75),
            (Exit::Misconfigured, 78),
            (Exit::Code(77), 77),
        ];
        for (exit, code) in cases {
            assert_eq!(exit.code(), code, "{exit:?}");
            assert!(TABLE.contains(&format!("\n{code:>4}  ")), "{code} is missing in the table");
        }
    }
}
