//! Settings, and what a caller may choose per read.

use std::time::Duration;

/// Settings of the cache of one worker.
#[derive(Debug, Clone)]
pub struct Config {
    /// First part of every key and channel.
    pub prefix: String,
    /// Memory of this worker's L1, in bytes of encoded values and keys: the host's budget divided by its workers.
    pub l1_bytes: u64,
    /// How long values live in Redis unless the caller says otherwise, before jitter.
    pub ttl: Duration,
    /// How long values live in the worker at most, before jitter; never longer than they live in Redis.
    pub l1_ttl: Duration,
    /// How long L1 is trusted after the last contact with Redis.
    pub disconnected_ttl: Duration,
    /// Loads of one namespace at a time in this worker.
    pub most_loads: usize,
    /// Loads that wait for one of these to end; beyond it they fail at once.
    pub most_waiting_loads: usize,
    /// How long a writer may take from the announcement of a change to its invalidation, before another worker makes that.
    pub change_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prefix: "bw".to_owned(),
            l1_bytes: 64 * 1024 * 1024,
            ttl: Duration::from_secs(60),
            l1_ttl: Duration::from_secs(30),
            disconnected_ttl: Duration::from_secs(10),
            most_loads: 32,
            most_waiting_loads: 1024,
            change_timeout: Duration::from_secs(10),
        }
    }
}

/// A set of entries of one type.
#[derive(Debug, Clone, Copy)]
pub struct Namespace {
    /// Part of keys, channels and metrics: lower-case letters, digits and dashes.
    pub name: &'static str,
    /// The version of the type. Raise it with every change of what the type encodes to: entries of another schema are
    /// misses.
    pub schema: u32,
}

/// No time of an entry is longer, whatever is asked for.
pub(crate) const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// How one read is to be cached. Start from [`Caches::options`](crate::Caches::options).
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long the value lives in Redis, ± 10 %.
    pub ttl: Duration,
    /// How long it lives in the worker, ± 10 %; never longer than in Redis.
    pub l1_ttl: Duration,
    /// How long it is remembered that there is no such row, ± 10 %.
    pub negative_ttl: Duration,
    /// How long the loader may take. The lease lives a second longer.
    pub load_timeout: Duration,
    /// How long a failed load answers for the ones that come after it.
    pub error_hold: Duration,
    /// How long a value that is no longer fresh may stand in for a newer one that takes longer than `soft_timeout`.
    pub stale_while_revalidate: Duration,
    /// How long it may stand in for a newer one that cannot be loaded. Redis keeps values for the longer of the two beyond
    /// their TTL.
    pub stale_if_error: Duration,
    /// How long somebody who could be answered with an old value waits for a new one; zero: not at all.
    pub soft_timeout: Duration,
    /// In place of `error_hold` where an old value stands in: how long no worker tries again.
    pub fail_throttle: Duration,
}

impl Options {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            ttl: config.ttl,
            l1_ttl: config.l1_ttl,
            negative_ttl: Duration::from_secs(5),
            load_timeout: Duration::from_secs(5),
            error_hold: Duration::from_millis(200),
            stale_while_revalidate: Duration::from_secs(300),
            stale_if_error: Duration::from_secs(300),
            soft_timeout: Duration::from_millis(50),
            fail_throttle: Duration::from_secs(5),
        }
    }

    /// How long a value is kept beyond its TTL.
    pub(crate) fn grace(&self) -> Duration {
        self.stale_while_revalidate.max(self.stale_if_error).min(LONGEST)
    }
}
