//! One connection to Redis, kept up for ever.
//!
//! fred's own reconnecting is switched off: it keeps commands over a reconnect and sends them afterwards, and has been
//! known to hang. Here a connection that ends takes its commands with it, and a new client replaces it.

mod dial;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fred::clients::Client;
use resilience::Backoff;
use tokio::{sync::watch, task::JoinSet};

pub(crate) use dial::{Dialer, Session};

use crate::config::{Config, Role};

/// The waits between attempts. The cap is what bounds the time from Redis's return to the first command.
pub(crate) const RECONNECT: Backoff =
    Backoff { base: Duration::from_millis(50), cap: Duration::from_millis(500), jitter: 0.2 };

/// A connection that lasted this long starts again with the shortest wait.
pub(crate) const STABLE: Duration = Duration::from_secs(1);

/// A connection on which replies are late and none has come for this long is given up, whatever fred thinks of it:
/// fred looks for silence only while it reads, so that a full socket would hide it.
const SILENCE: Duration = Duration::from_secs(2);
const SILENCE_CHECK: Duration = Duration::from_millis(500);

/// Whether there is a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first attempt has not ended.
    Starting,
    Connected,
    Disconnected,
}

/// The connection as commands see it.
pub(crate) struct Connection {
    link: Arc<Link>,
    /// Ends with the last handle.
    _keeper: JoinSet<()>,
}

struct Link {
    connected: AtomicBool,
    client: Mutex<Option<Client>>,
    state: watch::Sender<State>,
    /// Milliseconds from `born` to the first of the late replies since the last one in time; 0 when there is none.
    late_since: AtomicU64,
    born: Instant,
}

impl Connection {
    /// Starts to connect, and never stops trying. Must be called inside a tokio runtime, which drives the connection.
    pub(crate) fn open(config: &Config, role: Role) -> Self {
        let link = Arc::new(Link {
            connected: AtomicBool::new(false),
            client: Mutex::new(None),
            state: watch::Sender::new(State::Starting),
            late_since: AtomicU64::new(0),
            born: Instant::now(),
        });
        let mut keeper = JoinSet::new();
        keeper.spawn(keep_connected(Dialer::for_commands(config), role, Arc::clone(&link)));
        Self { link, _keeper: keeper }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.link.connected.load(Ordering::Relaxed)
    }

    pub(crate) fn client(&self) -> Option<Client> {
        if !self.is_connected() {
            return None;
        }
        self.link.client().clone()
    }

    /// Waits until the first attempt has ended, either way.
    pub(crate) async fn first_attempt(&self) {
        let mut state = self.link.state.subscribe();
        // The sender lives as long as `self`.
        let _ = state.wait_for(|state| *state != State::Starting).await;
    }

    /// Waits until there is a connection.
    pub(crate) async fn connected(&self) {
        let mut state = self.link.state.subscribe();
        let _ = state.wait_for(|state| *state == State::Connected).await;
    }

    pub(crate) fn replied(&self) {
        self.link.late_since.store(0, Ordering::Relaxed);
    }

    pub(crate) fn reply_is_late(&self) {
        let now = self.link.since_born().max(1);
        let _ = self.link.late_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Link {
    fn client(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, client: Option<Client>) {
        let connected = client.is_some();
        *self.client() = client;
        self.late_since.store(0, Ordering::Relaxed);
        self.connected.store(connected, Ordering::Relaxed);
        self.state.send_replace(match connected {
            true => State::Connected,
            false => State::Disconnected,
        });
    }

    fn since_born(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    fn is_silent(&self) -> bool {
        match self.late_since.load(Ordering::Relaxed) {
            0 => false,
            since => self.since_born().saturating_sub(since) >= SILENCE.as_millis() as u64,
        }
    }

    /// Waits until the connection has ended, and says how.
    async fn lost(&self, session: &mut Session) -> String {
        let mut check = tokio::time::interval(SILENCE_CHECK);
        loop {
            tokio::select! {
                reason = session.ended() => return reason,
                _ = check.tick() => if self.is_silent() {
                    return "no reply for too long".to_owned();
                },
            }
        }
    }
}

async fn keep_connected(dialer: Dialer, role: Role, link: Arc<Link>) {
    let mut failures = 0_u32;
    loop {
        match dialer.dial().await {
            Ok(mut session) => {
                tracing::info!(redis.role = %role, redis.address = %dialer.address(), "connected to redis");
                let since = Instant::now();
                link.set(Some(session.client()));
                let reason = link.lost(&mut session).await;
                link.set(None);
                tracing::warn!(redis.role = %role, reason, "lost the connection to redis");
                failures = if since.elapsed() >= STABLE { 0 } else { failures };
            }
            Err(reason) if failures == 0 => {
                link.set(None);
                tracing::warn!(redis.role = %role, redis.address = %dialer.address(), reason, "cannot connect to redis and keeps trying");
            }
            Err(reason) => {
                tracing::debug!(redis.role = %role, reason, attempts = failures + 1, "still cannot connect to redis");
            }
        }
        failures = failures.saturating_add(1);
        tokio::time::sleep(RECONNECT.delay(failures, fastrand::f64())).await;
    }
}
