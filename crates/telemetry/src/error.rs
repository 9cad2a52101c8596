//! Why logging could not be set up.

/// What a caller of [`crate::init`] can be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level is neither a level nor a list of `target=level`.
    #[error("`{level}` is not a log level: expected off, error, warn, info, debug or trace, or a list of target=level")]
    Level {
        /// The level as given.
        level: String,
    },
    /// Something else in this process has set up logging already.
    #[error("logging is set up already")]
    AlreadySet,
    /// The thread that writes the log did not start.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] std::io::Error),
}
