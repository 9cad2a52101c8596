//! What to limit, and how.

use std::time::Duration;

/// How long a decision may wait for Redis.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(25);
/// The least that providers hand to one customer.
pub(crate) const IPV6_PREFIX: u8 = 56;

/// Settings of a limiter.
#[derive(Debug, Clone)]
pub struct Config {
    /// Prefix of every key in Redis.
    pub prefix: String,
    /// Secret with which identities are hashed before they reach Redis. The same for all workers that share limits.
    pub key: [u8; 16],
    /// How long to wait for Redis before a decision is made without it.
    pub timeout: Duration,
    /// How much of an IPv6 address makes a client: 32 to 64 bits, or 128 for each address of its own. Providers hand a
    /// customer at least a /56.
    pub ipv6_prefix: u8,
    /// Whether all policies only count and report.
    pub shadow: bool,
    /// The limits. All that match a request apply.
    pub policies: Vec<Policy>,
    /// This worker's part of each limit while Redis is away, until [`crate::Limiter::divide`] says otherwise.
    pub share: Share,
}

impl Config {
    /// For one worker alone, which waits 25 ms for Redis and takes an IPv6 /56 for one client.
    pub fn new(prefix: &str, key: [u8; 16], policies: Vec<Policy>) -> Self {
        Self {
            prefix: prefix.to_owned(),
            key,
            timeout: TIMEOUT,
            ipv6_prefix: IPV6_PREFIX,
            shadow: false,
            policies,
            share: Share { index: 0, workers: 1 },
        }
    }
}

/// One limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// 1 to 64 letters, digits, `-`, `_` and `.`; unique; seen by clients in headers and part of the keys in Redis.
    pub name: String,
    /// Globs: `*` stands for a part of one segment, `**` for any number of segments, so that `/x/**` matches `/x` too.
    /// `None` means every path; an empty list none, so that the policy applies only where code names it.
    pub paths: Option<Vec<String>>,
    /// HTTP methods in upper case; `GET` covers `HEAD`. None means every method.
    pub methods: Vec<String>,
    /// Whose requests are counted together.
    pub key: Key,
    /// How they are counted.
    pub algorithm: Algorithm,
    /// Units per window, for [`Algorithm::Concurrency`] at the same time; 0 denies all.
    pub limit: u64,
    /// From 1 ms to 366 days; for [`Algorithm::Concurrency`] how long a worker that has vanished keeps its units.
    pub window: Duration,
    /// Units that a request takes; at least 1.
    pub cost: u32,
    /// Other limits for some tiers, by name.
    pub tiers: Vec<(String, Tier)>,
    /// Which answers count.
    pub count: Count,
    /// What happens while Redis is away.
    pub on_outage: OnOutage,
    /// Whether a worker may take requests ahead.
    pub lease: Lease,
    /// Whether it only counts and reports: never denies, and is not announced.
    pub shadow: bool,
}

impl Policy {
    /// So many requests of each address in each window, wherever they go.
    pub fn new(name: &str, limit: u64, window: Duration) -> Self {
        Self {
            name: name.to_owned(),
            paths: None,
            methods: Vec::new(),
            key: Key::All(vec![KeyPart::Address]),
            algorithm: Algorithm::FixedWindow,
            limit,
            window,
            cost: 1,
            tiers: Vec::new(),
            count: Count::All,
            on_outage: OnOutage::Local,
            lease: Lease::Off,
            shadow: false,
        }
    }
}

/// Whose requests are counted together. What a request does not have is replaced by its address, so that leaving it out is
/// no way around a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Those that agree in all of these.
    All(Vec<KeyPart>),
    /// Those that agree in the first of these that they have.
    First(Vec<KeyPart>),
}

/// One thing that tells requests apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    /// The client's address.
    Address,
    /// The authenticated user.
    User,
    /// The key of an application, as it was sent: anybody can make one up.
    ApiKey,
    /// The value of a header, whose name is in lower case.
    Header(String),
    /// The route, not the path: `/products/{id}` is one.
    Route,
}

/// How requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// In windows of fixed length, begun at a time of each identity's own.
    FixedWindow,
    /// A bucket that is refilled evenly (GCRA, ITU-T I.371): never more than `burst` at once, and `limit` per window.
    Gcra {
        /// As much as the limit, if not given.
        burst: Option<u64>,
    },
    /// This window, and the last one by the part of it that the sliding window still covers.
    SlidingCounter,
    /// Never above the limit in any window, counted in tenths of it.
    SlidingWindow,
    /// Never above the limit in any window, to the microsecond; limits up to 1,000.
    SlidingLog,
    /// Requests beyond `burst` are held up until their turn comes instead of denied.
    Pacing {
        /// How many pass without delay; at least 1.
        burst: u64,
        /// Who would wait longer is denied.
        max_delay: Duration,
    },
    /// Requests at the same time.
    Concurrency,
}

/// What a tier may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Units per window.
    Limit(u64),
    /// As much as it likes.
    Unlimited,
}

/// Which requests count, by how they were answered. All count until they are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Every one.
    All,
    /// Those that succeeded.
    Success,
    /// Those that failed.
    Failure,
}

/// What happens to a request that Redis cannot be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutage {
    /// Each worker enforces its part of the limit.
    Local,
    /// It passes.
    Open,
    /// It is turned away, as unavailable and not as denied.
    Closed,
}

/// Whether a worker may take requests ahead, to admit them without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// No: every request is counted when it comes.
    Off,
    /// When an identity is busy and its limit far from reached.
    Auto,
}

/// One worker among those over which a limit is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// This worker's number, from 0.
    pub index: u32,
    /// How many there are; at least 1.
    pub workers: u32,
}

/// Why a limiter cannot be made. Nothing can go wrong afterwards: a limiter that cannot ask Redis decides on its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are more policies than fit a [`crate::PolicySet`].
    #[error("at most 64 policies can be in force, not {0}")]
    TooManyPolicies(usize),
    /// Two policies would share their counters.
    #[error("two policies are named {0:?}")]
    DuplicateName(String),
    /// A policy says something that cannot be enforced.
    #[error("policy {name:?}: {problem}")]
    Policy {
        /// The policy's name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// This worker is not one of the workers.
    #[error("worker {index} is not one of {workers}")]
    Share {
        /// The worker's number, from 0.
        index: u32,
        /// How many there are.
        workers: u32,
    },
}
