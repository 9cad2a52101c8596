//! What can go wrong, split by what the caller may do next.

/// Why a command gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no connection, or the command never left this process: it was surely not executed.
    #[error("redis is not connected")]
    Unavailable,
    /// The command was handed to the connection, and its reply was lost or is late: it may have been executed, may yet
    /// be, or may never be. Send it again only if doing it twice does no harm.
    #[error("the command was sent to redis but its reply was lost or is late")]
    Indeterminate,
    /// Redis answered with this error.
    #[error("redis refused the command: {0}")]
    Server(String),
    /// Redis answered something that the command never answers.
    #[error("redis answered with something other than {expected}")]
    Unexpected {
        /// What the reply should have been.
        expected: &'static str,
    },
}

impl Error {
    /// Whether Redis is to blame, as opposed to the command: what a circuit breaker counts.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable | Self::Indeterminate)
    }
}

/// A Redis URL that cannot be used. The message never contains the URL, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid redis URL: {0}")]
pub struct InvalidUrl(pub(crate) &'static str);

/// Why a server could not be examined, without credentials: it cannot be reached, or it refuses to answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotExamined(pub(crate) String);
