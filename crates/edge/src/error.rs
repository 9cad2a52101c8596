//! Why a server cannot be set up.

use std::io;

/// What keeps [`Server`](crate::Server) from serving.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A trusted proxy is neither an address nor a network in CIDR notation.
    #[error("`{0}` is neither an IP address nor a network such as 10.0.0.0/8")]
    Network(String),
    /// The name of the header with the client's address is not a header's name.
    #[error("`{0}` is not the name of a header")]
    HeaderName(String),
    /// The name of this worker cannot be sent in a header.
    #[error("`served_by` has characters that a header cannot have")]
    ServedBy,
    /// A listening socket cannot be used.
    #[error("a listening socket cannot be used: {0}")]
    Listener(#[from] io::Error),
    /// The application's factory failed; it has logged why.
    #[error("the application could not be built")]
    Application,
}
