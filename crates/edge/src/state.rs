//! What all connections of one server share: who may come in, who has to go, and the server's own clock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use actix_http::header::{HeaderMap, HeaderName};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use crate::client_address::peer_address;
use crate::config::Deadlines;
use crate::connection::{Connection, Drain, Order};
use crate::statistics::{Closed, Statistics};
use crate::{Config, DrainKind};

/// What proxies tell the client's address in.
static PROXY_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-for"), HeaderName::from_static("forwarded")];

/// What all connections of a server share.
pub(crate) struct ServerState {
    pub(crate) config: Config,
    pub(crate) deadlines: Deadlines,
    pub(crate) statistics: Statistics,
    now: Cell<u32>,
    drain: Cell<Option<Drain>>,
    connections: RefCell<Vec<Rc<Connection>>>,
    addresses: RefCell<HashMap<IpAddr, usize>>,
    /// Connections that are being told that there is no room.
    refusing: Cell<usize>,
    /// Whether to look out for a proxy that nobody has been told to trust.
    looks_for_proxy: Cell<bool>,
    /// Told when the last connection has gone.
    emptied: Notify,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Nobody waits, so nobody can be asked to go.
    Server,
    /// Its address has as many as it may.
    Address,
}

impl ServerState {
    pub(crate) fn new(config: Config, statistics: Statistics) -> Rc<Self> {
        Rc::new(Self {
            looks_for_proxy: Cell::new(config.trusted_proxies.is_empty()),
            deadlines: Deadlines::new(&config),
            config,
            statistics,
            now: Cell::new(0),
            drain: Cell::new(None),
            connections: RefCell::new(Vec::new()),
            addresses: RefCell::new(HashMap::new()),
            refusing: Cell::new(0),
            emptied: Notify::new(),
        })
    }

    /// The tick it is.
    pub(crate) fn now(&self) -> u32 {
        self.now.get()
    }

    /// Whether every answer has to be the last of its connection.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.get().is_some()
    }

    /// Begins a drain, or turns one into the other kind.
    pub(crate) fn drain(&self, kind: DrainKind) {
        if self.drain.get().is_none_or(|drain| drain.kind != kind) {
            self.drain.set(Some(Drain { kind, since: self.now() }));
        }
    }

    /// Takes a connection in, at the expense of the one that has waited longest if there is no room.
    pub(crate) fn admit(self: &Rc<Self>, peer: Option<SocketAddr>) -> Result<Registration, Full> {
        let address = peer_address(peer);
        let trusted = peer.is_none() || self.config.trusted_proxies.trusts(address);
        let exempt = trusted || (address.is_loopback() && self.config.limits.exempt_loopback);
        let counted = (!exempt).then(|| counted_as(address));
        if let Some(address) = counted
            && self.addresses.borrow().get(&address).is_some_and(|open| *open >= self.config.max_connections_per_ip)
        {
            return Err(Full::Address);
        }
        if self.connections.borrow().len() >= self.config.max_connections {
            self.close_longest_idle()?;
        }
        if let Some(address) = counted {
            *self.addresses.borrow_mut().entry(address).or_default() += 1;
        }
        let connection = Rc::new(Connection::new(Rc::clone(self), peer, trusted, counted));
        let mut connections = self.connections.borrow_mut();
        connection.index.set(connections.len());
        connections.push(Rc::clone(&connection));
        self.statistics.set_connections(connections.len());
        Ok(Registration(connection))
    }

    /// Warns, once, when a peer sends what proxies send and none is trusted: then all clients behind it look like one.
    pub(crate) fn notice_proxy(&self, headers: &HeaderMap) {
        if self.looks_for_proxy.get() && PROXY_HEADERS.iter().any(|name| headers.contains_key(name)) {
            self.looks_for_proxy.set(false);
            tracing::warn!(
                code = "proxy-untrusted",
                "A peer names another client's address and is not believed. If it is your proxy, all clients behind it count as \
                 one: name it in http.trusted_proxies"
            );
        }
    }

    fn close_longest_idle(&self) -> Result<(), Full> {
        let connections = self.connections.borrow();
        let idle = connections.iter().filter_map(|connection| Some((connection.idle_since()?, connection)));
        let (_, longest) = idle.min_by_key(|(since, _)| *since).ok_or(Full::Server)?;
        self.statistics.closed(Closed::LongestIdle);
        longest.order(Order::CloseIdle);
        Ok(())
    }

    /// Makes room for one more refusal among `limit`, until the returned guard is dropped.
    pub(crate) fn begin_refusal(self: &Rc<Self>, limit: usize) -> Option<Refusing> {
        let refusing = self.refusing.get();
        (refusing < limit).then(|| {
            self.refusing.set(refusing + 1);
            Refusing(Rc::clone(self))
        })
    }

    fn remove(&self, connection: &Connection) {
        let mut connections = self.connections.borrow_mut();
        let index = connection.index.get();
        connections.swap_remove(index);
        if let Some(moved) = connections.get(index) {
            moved.index.set(index);
        }
        self.statistics.set_connections(connections.len());
        if connections.is_empty() {
            self.emptied.notify_one();
        }
        if let Some(address) = connection.counted {
            let mut addresses = self.addresses.borrow_mut();
            if let Some(open) = addresses.get_mut(&address) {
                *open -= 1;
                if *open == 0 {
                    addresses.remove(&address);
                }
            }
        }
    }

    /// Looks at every connection once per tick, for ever.
    pub(crate) async fn sweep(&self) -> Infallible {
        let mut ticker = interval(self.deadlines.tick);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticker.tick().await;
            let now = self.now.get().wrapping_add(1);
            self.now.set(now);
            let drain = self.drain.get();
            for connection in &*self.connections.borrow() {
                if let Some(order) = connection.judge(now, &self.deadlines, drain) {
                    connection.order(order);
                }
            }
            self.statistics.tick();
        }
    }

    /// Returns when no connection is left.
    pub(crate) async fn emptied(&self) {
        while !self.connections.borrow().is_empty() {
            self.emptied.notified().await;
        }
    }

    /// How many connections have a request that is not answered in full.
    pub(crate) fn busy(&self) -> usize {
        self.connections.borrow().iter().filter(|connection| connection.is_busy()).count()
    }

    /// Closes all connections, whatever they are doing.
    pub(crate) fn abort_all(&self) {
        for connection in &*self.connections.borrow() {
            connection.order(Order::Abort);
        }
    }
}

/// A connection's place among the others; dropping it makes room.
pub(crate) struct Registration(pub(crate) Rc<Connection>);

impl Drop for Registration {
    fn drop(&mut self) {
        self.0.server.remove(&self.0);
    }
}

/// A connection that is being told that there is no room.
pub(crate) struct Refusing(Rc<ServerState>);

impl Drop for Refusing {
    fn drop(&mut self) {
        self.0.refusing.set(self.0.refusing.get() - 1);
    }
}

/// One IPv6 client owns a /64 at least.
fn counted_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}
