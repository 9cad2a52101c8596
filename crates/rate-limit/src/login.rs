//! Who guesses passwords is stopped, and who owns the account is not.

use std::{net::IpAddr, sync::Arc, time::Duration};

use redis_store::{Arg, Bytes, Error as RedisError, RedisStore, Reply, Script};
use telemetry::{Counter, Registry};

use crate::{
    config::{IPV6_PREFIX, TIMEOUT},
    identity::{Hasher, Identity},
};

/// How long somebody who has logged in to an account counts as no stranger there, in milliseconds: 30 days.
pub(crate) const KNOWN_MS: i64 = 30 * 24 * 3600 * 1000;

/// Settings of a login guard.
#[derive(Debug, Clone)]
pub struct LoginConfig {
    /// Prefix of every key in Redis.
    pub prefix: String,
    /// Secret with which accounts and addresses are hashed before they reach Redis.
    pub key: [u8; 16],
    /// How long to wait for Redis.
    pub timeout: Duration,
    /// How much of an IPv6 address makes a client, in bits.
    pub ipv6_prefix: u8,
    /// After how many failures in a row to block; at least 1.
    pub failures: u32,
    /// How long to block the first time, the second time and so on; the last one from then on.
    pub blocks: Vec<Duration>,
    /// After so long without a failure all is forgotten.
    pub forget_after: Duration,
}

impl LoginConfig {
    /// Five failures in a row block for 1 minute, then 5, 15, and an hour, until a day has passed without any.
    pub fn new(prefix: &str, key: [u8; 16]) -> Self {
        Self {
            prefix: prefix.to_owned(),
            key,
            timeout: TIMEOUT,
            ipv6_prefix: IPV6_PREFIX,
            failures: 5,
            blocks: [1, 5, 15, 60].map(|minutes| Duration::from_secs(minutes * 60)).to_vec(),
            forget_after: Duration::from_secs(24 * 3600),
        }
    }
}

/// Counts failures to log in by account and by address. Cheap to clone.
///
/// Every attempt counts as a failure before its password is looked at, so that of any number at the same time no more are
/// evaluated than may fail. An account is blocked no longer than the address whose failure blocked it, and not at all for
/// addresses from which somebody has logged in to it within 30 days: those have a count of their own.
#[derive(Clone)]
pub struct LoginGuard {
    inner: Arc<Inner>,
}

struct Inner {
    store: RedisStore,
    config: LoginConfig,
    script: Script,
    outcomes: [Counter; OUTCOMES.len()],
}

/// What becomes of an attempt to log in.
#[must_use = "an attempt counts as a failure until it is told that it is none"]
#[derive(Debug)]
pub enum LoginVerdict {
    /// The password may be looked at.
    Admitted(Attempt),
    /// Too many have failed, and it must not be looked at.
    Blocked {
        /// Until the next attempt may be made.
        retry_after: Duration,
    },
    /// Redis is away; nobody is admitted without being counted.
    Unavailable,
}

/// An attempt that was admitted. It has failed unless it is told otherwise.
pub struct Attempt {
    guard: LoginGuard,
    keys: [Bytes; 3],
    was_known: i64,
    runs: [i64; 2],
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Succeeded,
    Failed,
    Withdrawn,
    Blocked,
    Unavailable,
}

const OUTCOMES: [&str; 5] = ["succeeded", "failed", "withdrawn", "blocked", "unavailable"];

impl LoginGuard {
    /// Makes a guard.
    ///
    /// # Panics
    ///
    /// If `config` has no blocks or not one failure is allowed.
    pub fn new(config: LoginConfig, store: &RedisStore, registry: &Registry) -> Self {
        assert!(config.failures > 0 && !config.blocks.is_empty(), "a login guard has to block after some failures");
        let outcome = |outcome| {
            let about =
                "Attempts to log in by how they ended; those that were blocked had their password not looked at.";
            registry.counter("bellwether_login_attempts_total", about, &[("outcome", outcome)])
        };
        let inner = Inner {
            store: store.with_timeout(config.timeout),
            script: Script::new(include_str!("scripts/login.lua")),
            outcomes: OUTCOMES.map(outcome),
            config,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Asks whether the password of `account` may be looked at for somebody at `address`. Case and blanks around it make no
    /// other account; one that does not exist is treated like one that does.
    pub async fn begin(&self, address: IpAddr, account: &str) -> LoginVerdict {
        let keys = self.keys(address, account);
        let blocks = self.inner.config.blocks.iter().map(|block| microseconds(*block));
        match self.run("begin", &keys, blocks).await.and_then(numbers) {
            Ok([0, was_known, runs @ ..]) => {
                let guard = self.clone();
                LoginVerdict::Admitted(Attempt { guard, keys, was_known, runs, outcome: Outcome::Failed })
            }
            Ok([wait_us, ..]) => {
                self.count(Outcome::Blocked);
                LoginVerdict::Blocked { retry_after: Duration::from_micros(wait_us.unsigned_abs()) }
            }
            Err(error) => {
                tracing::debug!(%error, "an attempt to log in cannot be counted");
                self.count(Outcome::Unavailable);
                LoginVerdict::Unavailable
            }
        }
    }

    fn keys(&self, address: IpAddr, account: &str) -> [Bytes; 3] {
        let Inner { config, .. } = &*self.inner;
        let account = account.trim().to_lowercase();
        let identity = |has_address: bool, has_account: bool| {
            let mut hasher = Hasher::new(&config.key);
            if has_address {
                hasher.address(address, config.ipv6_prefix);
            }
            if has_account {
                hasher.value(b'l', account.as_bytes());
            }
            hasher.finish()
        };
        let key = |identity: Identity, kind: &str| {
            let digits = identity.digits();
            let digits = String::from_utf8_lossy(&digits);
            // One hash slot for all: what an attempt counts for is decided together.
            Bytes::from(format!("{}:rl:{{login}}:{digits}:{kind}", config.prefix))
        };
        [key(identity(true, false), "a"), key(identity(false, true), "u"), key(identity(true, true), "k")]
    }

    async fn run(
        &self,
        verb: &'static str,
        keys: &[Bytes],
        rest: impl IntoIterator<Item = i64>,
    ) -> Result<Reply, RedisError> {
        let Inner { config, store, script, .. } = &*self.inner;
        let forget_ms = i64::try_from(config.forget_after.as_millis()).unwrap_or(KNOWN_MS);
        let mut arguments: Vec<Arg> =
            vec![verb.into(), i64::from(config.failures).into(), forget_ms.into(), KNOWN_MS.into()];
        arguments.extend(rest.into_iter().map(Arg::from));
        store.run(script, keys, &arguments).await
    }

    fn count(&self, outcome: Outcome) {
        self.inner.outcomes[outcome as usize].inc();
    }
}

impl Attempt {
    /// The password was right: the failures in a row are over, and this address is no stranger to the account.
    pub async fn succeeded(self) {
        self.end(Outcome::Succeeded, "succeed").await;
    }

    /// The password was wrong.
    pub fn failed(self) {}

    /// The password could not be looked at, which is nobody's failure.
    pub async fn withdrawn(self) {
        self.end(Outcome::Withdrawn, "withdraw").await;
    }

    /// What cannot be told stays a failure, which the next success or the end of the block mends.
    async fn end(mut self, outcome: Outcome, verb: &'static str) {
        self.outcome = outcome;
        let counted = [self.was_known].into_iter().chain(self.runs);
        if let Err(error) = self.guard.run(verb, &self.keys, counted).await {
            tracing::warn!(%error, verb, "How an attempt to log in ended was not told to redis and counts as a failure");
        }
    }
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Attempt").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.guard.count(self.outcome);
    }
}

fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn numbers(reply: Reply) -> Result<[i64; 4], RedisError> {
    let numbers: Vec<i64> = reply.into_array()?.into_iter().map(Reply::into_integer).collect::<Result<_, _>>()?;
    numbers.try_into().map_err(|_| RedisError::Unexpected { expected: "four numbers" })
}
