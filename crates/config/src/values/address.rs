//! Addresses to listen on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::setting::{Kind, Scalar};

/// Where to listen: a TCP address or a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| format!("expected {}", <Self as Scalar>::EXPECTED))
    }
}

impl Scalar for ListenAddress {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "an address such as \"127.0.0.1:8080\" or \"unix:/run/app.sock\"";

    fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return (!path.is_empty()).then(|| Self::Unix(path.into()));
        }
        SocketAddr::parse(text).map(Self::Tcp)
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Scalar for SocketAddr {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "an address such as \"127.0.0.1:9090\"";

    fn parse(text: &str) -> Option<Self> {
        let by_name = || {
            let (host, port) = text.rsplit_once(':')?;
            Some(Self::new(parse_host(host)?, port.parse().ok()?))
        };
        text.parse().ok().or_else(by_name)
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// An address without a port. Names are not looked up, except the one that means the same everywhere.
pub(crate) fn parse_host(text: &str) -> Option<IpAddr> {
    match text {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        _ => text.trim_start_matches('[').trim_end_matches(']').parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_literal_or_localhost_or_a_unix_path() {
        let cases = [
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("[::1]:80", Some("[::1]:80")),
            ("localhost:0", Some("127.0.0.1:0")),
            ("unix:/run/a.sock", Some("unix:/run/a.sock")),
            ("unix:", None),
            ("8080", None),
            ("example.org:80", None),
            ("127.0.0.1:70000", None),
        ];
        for (text, expected) in cases {
            assert_eq!(ListenAddress::parse(text).map(|address| address.text()).as_deref(), expected, "{text}");
        }
    }
}
