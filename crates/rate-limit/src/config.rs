//! What to limit, and how.

use std::time::Duration;

/// Settings of a limiter.
#[derive(Debug, Clone)]
pub struct Config {
    /// Prefix of every key in Redis.
    pub prefix: String,
    /// Secret with which addresses are hashed before they reach Redis. The same for all workers that share limits.
    pub key: [u8; 16],
    /// How long to wait for Redis before a decision is made without it.
    pub timeout: Duration,
    /// The limits. All that match a request apply.
    pub policies: Vec<Policy>,
    /// This worker's part of each limit while Redis is away, until [`crate::Limiter::divide_among`] says otherwise.
    pub share: Share,
}

/// One limit: so many requests of one address in each window.
#[derive(Debug, Clone)]
pub struct Policy {
    /// 1 to 64 letters, digits, `-`, `_` and `.`; unique; seen by clients in headers and part of the keys in Redis.
    pub name: String,
    /// Globs: `*` stands for a part of one segment, `**` for any number of segments, so that `/x/**` matches `/x` too.
    /// None means every path.
    pub paths: Vec<String>,
    /// HTTP methods in upper case; `GET` covers `HEAD`. None means every method.
    pub methods: Vec<String>,
    /// Requests per window; 0 denies all. At most 10¹².
    pub limit: u64,
    /// From 1 ms to 366 days.
    pub window: Duration,
}

/// One worker among those over which a limit is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// This worker's number, from 0.
    pub index: u32,
    /// How many there are; at least 1.
    pub workers: u32,
}
