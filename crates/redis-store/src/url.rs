//! Redis URLs: the schemes, hosts and credentials.
//!
//! fred has a parser too; this one takes the comma-separated hosts that other clients take, a socket path with
//! credentials but without a made-up host, and never repeats a password in an error.

use std::{fmt, net::IpAddr, path::PathBuf};

use crate::error::InvalidUrl;

/// A parsed Redis URL.
///
/// | form | meaning |
/// |---|---|
/// | `redis://[user[:password]@]host[:6379][/db]` | one server |
/// | `redis+unix://[user[:password]@]/path/to.sock[?db=1]` | one server on a unix socket |
/// | `redis-cluster://[user[:password]@]host[:6379][,host…]` | a cluster, from any of its nodes |
/// | `redis-sentinel://[user[:password]@]host[:26379][,host…]/service[/db]` | the master that the sentinels name; their own credentials as `?sentinel_username=…&sentinel_password=…` |
///
/// `rediss`, `rediss-cluster` and `rediss-sentinel` do the same over TLS. `redis://:password@host` gives a password
/// without a user. Special characters are percent-encoded. `Debug` and `Display` leave the credentials out.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    pub(crate) server: ServerAddress,
    pub(crate) credentials: Credentials,
    pub(crate) database: Option<u8>,
    pub(crate) tls: bool,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum ServerAddress {
    Single(Host),
    Unix(PathBuf),
    Cluster(Vec<Host>),
    Sentinel { hosts: Vec<Host>, service: String, credentials: Credentials },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

impl Url {
    /// Parses `text`.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(InvalidUrl("it has no scheme such as redis://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let slash = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(slash);
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Credentials::parse(credentials)?, hosts),
            None => (Credentials::default(), authority),
        };
        let query = Query::parse(query)?;
        let tls = scheme.starts_with("rediss");
        let (server, database) = match scheme {
            "redis" | "rediss" => (ServerAddress::single(hosts)?, path.strip_prefix('/')),
            "redis+unix" => (ServerAddress::unix(hosts, path)?, query.database.as_deref()),
            "redis-cluster" | "rediss-cluster" => {
                (ServerAddress::Cluster(Host::list(hosts, REDIS_PORT)?), path.strip_prefix('/'))
            }
            "redis-sentinel" | "rediss-sentinel" => {
                let path = path.strip_prefix('/').unwrap_or(path);
                let (service, database) = match path.split_once('/') {
                    Some((service, database)) => (service, Some(database)),
                    None => (path, None),
                };
                let server = ServerAddress::sentinel(hosts, service, query.sentinel)?;
                (server, database)
            }
            _ => {
                return Err(InvalidUrl(
                    "the scheme must be redis, rediss, redis+unix, redis-cluster, rediss-cluster, redis-sentinel or rediss-sentinel",
                ));
            }
        };
        let database = database_number(database)?;
        if matches!(server, ServerAddress::Cluster(_)) && database.is_some_and(|number| number != 0) {
            return Err(InvalidUrl("a cluster has only database 0"));
        }
        Ok(Self { server, credentials, database, tls })
    }

    /// Whether it names a cluster, where one script may only touch keys of one hash slot.
    pub fn is_cluster(&self) -> bool {
        matches!(self.server, ServerAddress::Cluster(_))
    }

    /// Whether every server it names is on this machine.
    pub fn is_local(&self) -> bool {
        match &self.server {
            ServerAddress::Unix(_) => true,
            ServerAddress::Single(host) => host.is_local(),
            ServerAddress::Cluster(hosts) | ServerAddress::Sentinel { hosts, .. } => hosts.iter().all(Host::is_local),
        }
    }

    /// Whether a password leaves this machine without encryption.
    pub fn exposes_password(&self) -> bool {
        let of_sentinels = match &self.server {
            ServerAddress::Sentinel { credentials, .. } => credentials.password.is_some(),
            _ => false,
        };
        !self.tls && !self.is_local() && (of_sentinels || self.credentials.password.is_some())
    }
}

impl ServerAddress {
    fn single(hosts: &str) -> Result<Self, InvalidUrl> {
        let mut hosts = Host::list(hosts, REDIS_PORT)?;
        match (hosts.pop(), hosts.is_empty()) {
            (Some(host), true) => Ok(Self::Single(host)),
            _ => Err(InvalidUrl("several hosts need redis-cluster:// or redis-sentinel://")),
        }
    }

    fn unix(hosts: &str, path: &str) -> Result<Self, InvalidUrl> {
        if !hosts.is_empty() || path.len() < 2 {
            return Err(InvalidUrl("a unix socket is given as redis+unix:///path/to.sock"));
        }
        Ok(Self::Unix(PathBuf::from(decode(path)?)))
    }

    fn sentinel(hosts: &str, service: &str, credentials: Credentials) -> Result<Self, InvalidUrl> {
        if service.is_empty() {
            return Err(InvalidUrl("sentinels need the name of the service: redis-sentinel://host/service"));
        }
        Ok(Self::Sentinel { hosts: Host::list(hosts, SENTINEL_PORT)?, service: decode(service)?, credentials })
    }
}

impl Host {
    fn list(text: &str, default_port: u16) -> Result<Vec<Self>, InvalidUrl> {
        text.split(',').map(|host| Self::parse(host, default_port)).collect()
    }

    fn parse(text: &str, default_port: u16) -> Result<Self, InvalidUrl> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (name, port) = rest.split_once(']').ok_or(InvalidUrl("an IPv6 address must end with ]"))?;
                (name, port.strip_prefix(':'))
            }
            None => match text.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            },
        };
        if name.is_empty() {
            return Err(InvalidUrl("a host is missing"));
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_| InvalidUrl("the port is not a number from 1 to 65535"))?,
            None => default_port,
        };
        Ok(Self { name: name.to_owned(), port })
    }

    fn is_local(&self) -> bool {
        self.name == "localhost" || self.name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl Credentials {
    fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let (username, password) = match text.split_once(':') {
            Some((username, password)) => (username, Some(decode(password)?)),
            None => (text, None),
        };
        let username = Some(decode(username)?).filter(|name| !name.is_empty());
        Ok(Self { username, password })
    }
}

#[derive(Default)]
struct Query {
    database: Option<String>,
    sentinel: Credentials,
}

impl Query {
    fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = Some(decode(value)?);
            match name {
                "db" => query.database = value,
                "sentinel_username" => query.sentinel.username = value,
                "sentinel_password" => query.sentinel.password = value,
                _ => {
                    return Err(InvalidUrl("only db, sentinel_username and sentinel_password may follow the ?"));
                }
            }
        }
        Ok(query)
    }
}

fn database_number(text: Option<&str>) -> Result<Option<u8>, InvalidUrl> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| InvalidUrl("the database is not a number from 0 to 255")),
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, InvalidUrl> {
    const WRONG: InvalidUrl = InvalidUrl("a % must be followed by two hexadecimal digits of UTF-8");
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit().ok_or(WRONG)?, digit().ok_or(WRONG)?);
        decoded.push((high * 16 + low) as u8);
    }
    String::from_utf8(decoded).map_err(|_| WRONG)
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls { "s" } else { "" };
        match &self.server {
            ServerAddress::Single(host) => write!(formatter, "redis{tls}://{host}")?,
            ServerAddress::Unix(path) => write!(formatter, "redis+unix://{}", path.display())?,
            ServerAddress::Cluster(hosts) => {
                write!(formatter, "redis{tls}-cluster://{}", Hosts(hosts))?;
            }
            ServerAddress::Sentinel { hosts, service, .. } => {
                write!(formatter, "redis{tls}-sentinel://{}/{service}", Hosts(hosts))?;
            }
        }
        match (self.database, &self.server) {
            (None, _) => Ok(()),
            (Some(database), ServerAddress::Unix(_)) => write!(formatter, "?db={database}"),
            (Some(database), _) => write!(formatter, "/{database}"),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{self}\"")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(formatter, "[{}]:{}", self.name, self.port),
            false => write!(formatter, "{}:{}", self.name, self.port),
        }
    }
}

struct Hosts<'a>(&'a [Host]);

impl fmt::Display for Hosts<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{host}")?;
        }
        Ok(())
    }
}
