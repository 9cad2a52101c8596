//! Who the client is: the peer or, behind trusted proxies, the hop that the nearest of them saw.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use actix_http::header::{HeaderMap, HeaderName};

use crate::Error;

/// More hops than any honest chain of proxies has; what lies beyond was written by the client.
const MAX_HOPS: usize = 16;

/// The proxies whose word is taken for the client's address, and the one header they use.
///
/// The default trusts nobody, so that the client's address is the peer's.
#[derive(Debug, Clone)]
pub struct TrustedProxies {
    networks: Networks,
    header: HeaderName,
    forwarded: bool,
}

impl TrustedProxies {
    /// Takes networks in CIDR notation or single addresses, and `x-forwarded-for`, `forwarded` (RFC 7239) or the name of
    /// any other header that holds a list of addresses.
    ///
    /// # Errors
    /// Names the first network that cannot be read, or the header.
    pub fn parse<'a>(networks: impl IntoIterator<Item = &'a str>, header: &str) -> Result<Self, Error> {
        let header = HeaderName::from_str(header).map_err(|_| Error::HeaderName(header.to_owned()))?;
        Ok(Self { networks: Networks::parse(networks)?, forwarded: header == "forwarded", header })
    }

    /// Whether the word of `address` is taken.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.networks.contain(address)
    }

    /// Whether nobody is trusted.
    pub(crate) fn is_empty(&self) -> bool {
        self.networks.0.is_empty()
    }

    /// Walks the header's hops from the right, nearest first, and stops at the first that is not trusted, cannot be read,
    /// or is one too many. `peer` has to be trusted already.
    pub(crate) fn client_behind(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let mut walked = 0;
        for line in headers.get_all(&self.header).rev() {
            let mut rest = line.as_bytes();
            while let Some((left, element)) = last_element(rest) {
                walked += 1;
                if walked > MAX_HOPS {
                    return client;
                }
                let hop = if self.forwarded { forwarded_for(element) } else { str::from_utf8(element).ok() };
                let Some(hop) = hop.and_then(parse_hop) else { return client };
                client = hop;
                if !self.trusts(hop) {
                    return client;
                }
                let Some(left) = left else { break };
                rest = left;
            }
        }
        client
    }
}

impl Default for TrustedProxies {
    fn default() -> Self {
        Self { networks: Networks::default(), header: HeaderName::from_static("x-forwarded-for"), forwarded: false }
    }
}

/// The address of a peer, IPv4-mapped ones as IPv4. A peer on a unix socket counts as loopback.
pub(crate) fn peer_address(peer: Option<SocketAddr>) -> IpAddr {
    peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip()).to_canonical()
}

/// A list of networks. IPv4-mapped addresses count as IPv4.
#[derive(Debug, Clone, Default)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Takes networks in CIDR notation or single addresses.
    ///
    /// # Errors
    /// Names the first that cannot be read.
    pub fn parse<'a>(networks: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        networks.into_iter().map(str::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of them holds `address`.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// One network in CIDR notation, held as IPv6 so that one comparison serves both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    bits: u128,
    mask: u128,
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        as_bits(address) & self.mask == self.bits
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = || Error::Network(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| refused())?;
        let (width, mapped) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let length = match length {
            Some(length) => length.trim().parse::<u32>().ok().filter(|length| *length <= width).ok_or_else(refused)?,
            None => width,
        };
        let mask = u128::MAX.checked_shl(128 - (length + mapped)).unwrap_or(0);
        Ok(Self { bits: as_bits(address) & mask, mask })
    }
}

fn as_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Splits the last element off a comma-separated list: what is left of it, if anything, and the element.
///
/// It reads from the right because that end was written by a proxy, and so the quotes of a client who leaves one open on
/// the left cannot swallow what the proxy appended.
fn last_element(list: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    if list.trim_ascii().is_empty() {
        return None;
    }
    let mut quoted = false;
    for (index, byte) in list.iter().enumerate().rev() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => return Some((Some(&list[..index]), &list[index + 1..])),
            _ => {}
        }
    }
    Some((None, list))
}

/// The `for` parameter of one element of a `Forwarded` header.
fn forwarded_for(element: &[u8]) -> Option<&str> {
    str::from_utf8(element).ok()?.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// Reads `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, each with or without a zone.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let host = if let Some(bracketed) = hop.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']')?;
        if !port.is_empty() {
            is_port(port.strip_prefix(':')?)?;
        }
        host
    } else {
        match hop.split_once(':') {
            // More than one colon is an IPv6 address without brackets, which cannot have a port.
            Some((host, port)) if !port.contains(':') => {
                is_port(port)?;
                host
            }
            _ => hop,
        }
    };
    let host = host.split_once('%').map_or(host, |(address, _zone)| address);
    host.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn is_port(text: &str) -> Option<()> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(())
}

#[cfg(test)]
mod tests {
    use actix_http::header::HeaderValue;

    use super::*;

    const PEER: &str = "10.0.0.1";

    /// `header` is `name: line | line | …`; the proxies of 10.0.0.0/8, 192.168.7.7 and fd00::/8 are trusted.
    fn client(header: &str, lines: &[&str]) -> String {
        let proxies = TrustedProxies::parse(["10.0.0.0/8", "192.168.7.7", "fd00::/8"], header).unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            let name = HeaderName::from_str(header).unwrap();
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        // The other headers of the kind are always there and always lie.
        for other in ["x-forwarded-for", "forwarded", "x-real-ip"] {
            if other != header {
                headers.append(HeaderName::from_static(other), HeaderValue::from_static("for=6.6.6.6"));
            }
        }
        proxies.client_behind(PEER.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_client_is_the_right_most_hop_that_is_not_a_trusted_proxy() {
        let deep = ["9.9.9.9"].into_iter().chain(std::iter::repeat_n("10.0.0.9", 64)).collect::<Vec<_>>().join(",");
        let table: &[(&str, &[&str], &str)] = &[
            ("x-forwarded-for", &[], PEER),
            ("x-forwarded-for", &[""], PEER),
            ("x-forwarded-for", &[" , "], PEER),
            ("x-forwarded-for", &["203.0.113.5"], "203.0.113.5"),
            ("x-forwarded-for", &["6.6.6.6, 203.0.113.5"], "203.0.113.5"),
            ("x-forwarded-for", &["6.6.6.6, 203.0.113.5, 10.9.9.9"], "203.0.113.5"),
            ("x-forwarded-for", &["203.0.113.5,10.9.9.9,192.168.7.7"], "203.0.113.5"),
            ("x-forwarded-for", &["203.0.113.5, 192.168.7.8, 10.9.9.9"], "192.168.7.8"),
            ("x-forwarded-for", &["10.2.2.2, 10.3.3.3"], "10.2.2.2"),
            ("x-forwarded-for", &["203.0.113.5, junk"], PEER),
            ("x-forwarded-for", &["203.0.113.5, junk, 10.3.3.3"], "10.3.3.3"),
            ("x-forwarded-for", &["203.0.113.5, , 10.3.3.3"], "10.3.3.3"),
            ("x-forwarded-for", &["junk, 203.0.113.5"], "203.0.113.5"),
            ("x-forwarded-for", &["203.0.113.5, unknown"], PEER),
            ("x-forwarded-for", &["203.0.113.5:443"], "203.0.113.5"),
            ("x-forwarded-for", &["203.0.113.5:"], PEER),
            ("x-forwarded-for", &["203.0.113.5:x"], PEER),
            ("x-forwarded-for", &["2001:db8::1"], "2001:db8::1"),
            ("x-forwarded-for", &["[2001:db8::1]"], "2001:db8::1"),
            ("x-forwarded-for", &["[2001:db8::1]:8080"], "2001:db8::1"),
            ("x-forwarded-for", &["[2001:db8::1"], PEER),
            ("x-forwarded-for", &["[2001:db8::1]8080"], PEER),
            ("x-forwarded-for", &["fe80::1%eth0"], "fe80::1"),
            ("x-forwarded-for", &["2001:db8::1, fd00::7"], "2001:db8::1"),
            ("x-forwarded-for", &["::ffff:203.0.113.5"], "203.0.113.5"),
            ("x-forwarded-for", &["203.0.113.5, ::ffff:10.1.1.1"], "203.0.113.5"),
            ("x-forwarded-for", &["2001:db8::1.2.3.4"], "2001:db8::102:304"),
            ("x-forwarded-for", &["6.6.6.6", "203.0.113.5"], "203.0.113.5"),
            ("x-forwarded-for", &["203.0.113.5", "10.3.3.3, 10.4.4.4"], "203.0.113.5"),
            ("x-forwarded-for", &["203.0.113.5", ""], "203.0.113.5"),
            ("x-forwarded-for", &[&deep], "10.0.0.9"),
            ("x-real-ip", &["203.0.113.5"], "203.0.113.5"),
            ("forwarded", &["for=203.0.113.5"], "203.0.113.5"),
            ("forwarded", &["proto=https;FOR=\"203.0.113.5:80\";by=10.0.0.1"], "203.0.113.5"),
            ("forwarded", &["for=6.6.6.6, for=\"[2001:db8::1]:80\", for=10.3.3.3"], "2001:db8::1"),
            ("forwarded", &["for=203.0.113.5, for=_hidden"], PEER),
            ("forwarded", &["for=203.0.113.5, for=unknown, for=10.3.3.3"], "10.3.3.3"),
            ("forwarded", &["for=203.0.113.5, proto=http"], PEER),
            ("forwarded", &["for=\"6.6.6.6, for=203.0.113.5"], "203.0.113.5"),
            ("forwarded", &["for=\"a,b\", for=203.0.113.5"], "203.0.113.5"),
        ];
        for (header, lines, expected) in table {
            assert_eq!(client(header, lines), *expected, "{header}: {lines:?}");
        }
    }

    #[test]
    fn networks_of_both_families_contain_exactly_their_addresses() {
        let table = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("192.0.2.7/32", "::ffff:192.0.2.7", true),
            ("::ffff:192.0.2.0/120", "192.0.2.99", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("2001:db8::1", "2001:db8::2", false),
        ];
        for (network, address, expected) in table {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), expected, "{network:?} {address}");
        }
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "example.org"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_header_name_with_a_space_is_refused() {
        assert!(matches!(TrustedProxies::parse([], "x forwarded"), Err(Error::HeaderName(_))));
    }
}
