//! What a caller decides about the database. Timeouts are not here: they belong to the promises of
//! this crate and are constants beside the code that keeps them.

/// Where the database is and how many connections one process may open.
///
/// There is no `Debug`: the URL may hold a password.
#[derive(Clone)]
pub struct Config {
    /// `sqlite://PATH` (a missing file is created) or `postgres://USER:PASSWORD@HOST/DATABASE`.
    pub url: String,
    /// At least 1. On PostgreSQL all connections of this process, on SQLite those that read: one
    /// more writes.
    pub max_connections: u32,
}
