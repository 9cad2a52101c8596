//! What an operator may choose, and the limits that nobody has to.

use std::time::Duration;

use crate::TrustedProxies;

/// How a [`Server`](crate::Server) treats its clients. The fields are the `[http]` section of the configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose word is taken for a client's address, and in which header.
    pub trusted_proxies: TrustedProxies,
    /// The value of `x-served-by` on every answer, or no such header.
    pub served_by: Option<String>,
    /// Which answers are logged one by one.
    pub access_log: AccessLog,
    /// How long a connection may wait in silence for its next request.
    pub keep_alive: Duration,
    /// After this time a handler's answer is a 504. The clock starts anew with each piece of the request's body.
    pub handler_timeout: Duration,
    /// Open connections; one more closes the one that has waited longest, or is refused when none waits.
    pub max_connections: usize,
    /// Open connections from one IPv4 address or IPv6 /64. Loopback, unix sockets and trusted proxies are exempt.
    pub max_connections_per_ip: usize,
    /// A drain that lasts longer is cut.
    pub drain_timeout: Duration,
    /// Durations that have no key in the configuration; tests shorten them.
    #[doc(hidden)]
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trusted_proxies: TrustedProxies::default(),
            served_by: None,
            access_log: AccessLog::Off,
            keep_alive: Duration::from_secs(5),
            handler_timeout: Duration::from_secs(10),
            max_connections: 4096,
            max_connections_per_ip: 256,
            drain_timeout: Duration::from_secs(29),
            limits: Limits::default(),
        }
    }
}

/// Which answers are logged one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those with a status of 500 and above.
    Errors,
    /// Every one.
    All,
}

/// The deadlines of a connection that are the same everywhere.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct Limits {
    /// How often connections are looked at, and so the resolution of every deadline.
    pub tick: Duration,
    /// From the first byte of a head, or from the accept, to its last.
    pub head: Duration,
    /// From a head to the last byte of its body, unless the route allows more.
    pub body: Duration,
    /// A client that takes nothing of its answer for this long is cut off.
    pub write_stall: Duration,
    /// How long a connection that was told to close is still read, so that the client sees the last answer.
    pub linger: Duration,
    /// At a stop, the silence after which a waiting connection is closed.
    pub stop_silence: Duration,
    /// How long accepting pauses when there are no descriptors left.
    pub descriptor_pause: Duration,
    /// Whether loopback is exempt from the connections per address.
    pub exempt_loopback: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(100),
            head: Duration::from_secs(10),
            body: Duration::from_secs(15),
            write_stall: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            stop_silence: Duration::from_secs(1),
            descriptor_pause: Duration::from_millis(100),
            exempt_loopback: true,
        }
    }
}

/// The deadlines in ticks of the server's own clock.
///
/// A tick is counted each time the loop gets round to it, so that a loop that was busy for seconds does not find its
/// clients late: they were waiting for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) tick: Duration,
    pub(crate) head: u32,
    pub(crate) body: u32,
    pub(crate) handler: u32,
    pub(crate) write_stall: u32,
    pub(crate) linger: u32,
    pub(crate) keep_alive: u32,
    pub(crate) stop_silence: u32,
}

impl Deadlines {
    pub(crate) fn new(config: &Config) -> Self {
        let limits = &config.limits;
        let ticks = |duration| ticks(duration, limits.tick);
        Self {
            tick: limits.tick,
            head: ticks(limits.head),
            body: ticks(limits.body),
            handler: ticks(config.handler_timeout),
            write_stall: ticks(limits.write_stall),
            linger: ticks(limits.linger),
            keep_alive: ticks(config.keep_alive),
            stop_silence: ticks(limits.stop_silence),
        }
    }
}

/// The ticks that last at least `duration`.
pub(crate) fn ticks(duration: Duration, tick: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(tick.as_nanos().max(1))).unwrap_or(u32::MAX)
}
