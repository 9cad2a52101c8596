//! Where Redis is and how long to wait for it.

use std::{fmt, time::Duration};

use crate::url::Url;

/// Settings of one connection.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the server is.
    pub url: Url,
    /// How long any command may take before its reply counts as late.
    pub command_timeout: Duration,
}

/// What a connection is used for. It names the connection in logs; each role has its own, so that a large cache entry
/// never stands in front of a limit's check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Limits, sessions, locks, jobs: never evicted.
    State,
    /// Entries that may vanish at any time.
    Cache,
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::State => "state",
            Self::Cache => "cache",
        })
    }
}
