//! Who is limited: made comparable and unreadable by a keyed hash.

use std::{
    hash::Hasher as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use siphasher::sip128::{Hasher128 as _, SipHasher24};

/// The lanes that identities are spread over. On a cluster each lane is in one hash slot.
pub(crate) const LANES: usize = 64;

/// The keyed hash of whoever sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) high: u64,
    pub(crate) low: u64,
}

/// Makes identities: SipHash-2-4 with 128 bits over kinds and values.
pub(crate) struct Hasher(SipHasher24);

impl Hasher {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(key))
    }

    /// Takes an address, of which IPv6 counts by its first `ipv6_prefix` bits.
    pub(crate) fn address(&mut self, address: IpAddr, ipv6_prefix: u8) {
        match normalised(address, ipv6_prefix) {
            IpAddr::V4(address) => self.value(b'a', &address.octets()),
            IpAddr::V6(address) => self.value(b'a', &address.octets()),
        }
    }

    /// Takes a value of some kind. Its length goes before it, so that no two lists of values look alike.
    pub(crate) fn value(&mut self, kind: u8, value: &[u8]) {
        self.0.write_u8(kind);
        self.0.write_u64(value.len() as u64);
        self.0.write(value);
    }

    pub(crate) fn finish(&self) -> Identity {
        let hash = self.0.finish128();
        Identity { high: hash.h1, low: hash.h2 }
    }
}

impl Identity {
    #[cfg(test)]
    pub(crate) fn of_address(address: IpAddr, key: &[u8; 16]) -> Self {
        let mut hasher = Hasher::new(key);
        hasher.address(address, 56);
        hasher.finish()
    }

    pub(crate) fn lane(self) -> usize {
        (self.low % LANES as u64) as usize
    }

    /// What spreads the windows of different identities, so that they do not all begin at once.
    pub(crate) fn seed(self) -> u32 {
        (self.low >> 32) as u32
    }

    /// 32 hexadecimal digits.
    pub(crate) fn digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        let bytes = (u128::from(self.high) << 64 | u128::from(self.low)).to_be_bytes();
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        digits
    }
}

/// Reads what [`Identity::digits`] wrote.
impl FromStr for Identity {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_written_so = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let bits = u128::from_str_radix(text, 16).ok().filter(|_| is_written_so).ok_or(())?;
        Ok(Self { high: (bits >> 64) as u64, low: bits as u64 })
    }
}

/// IPv4 addresses in IPv6's clothes become IPv4; other IPv6 addresses lose all but their first bits.
fn normalised(address: IpAddr, ipv6_prefix: u8) -> IpAddr {
    let IpAddr::V6(address) = address else {
        return address;
    };
    match address.to_ipv4_mapped().or_else(|| behind_nat64(address)) {
        Some(address) => IpAddr::V4(address),
        None => {
            let mask = u128::MAX.checked_shl(128 - u32::from(ipv6_prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

/// The IPv4 address in the well-known prefix 64:ff9b::/96 (RFC 6052).
fn behind_nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn addresses_of_one_client_are_one_identity() {
        let groups: [&[&str]; 8] = [
            &["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201", "64:ff9b::192.0.2.1", "64:ff9b::c000:201"],
            &["192.0.2.2", "::ffff:192.0.2.2"],
            &["2001:db8::1", "2001:db8::2", "2001:db8:0:ff:ffff:ffff:ffff:ffff", "2001:db8::1.2.3.4"],
            &["2001:db8:0:100::1", "2001:db8:0:1ff::"],
            &["::1", "::2", "::1.2.3.4"],
            &["fe80::1", "fe80::ffff:1"],
            &["64:ff9b:1::1", "64:ff9b:1::2"],
            &["255.255.255.255"],
        ];
        let identity = |text: &str| Identity::of_address(parse(text), b"0123456789abcdef");
        for (number, group) in groups.iter().enumerate() {
            for address in *group {
                assert_eq!(identity(address), identity(group[0]), "{address} and {}", group[0]);
            }
            for other in &groups[number + 1..] {
                assert_ne!(identity(group[0]), identity(other[0]), "{} and {}", group[0], other[0]);
            }
        }
    }

    #[test]
    fn another_key_gives_other_identities() {
        let address = parse("192.0.2.1");
        assert_ne!(Identity::of_address(address, &[1; 16]), Identity::of_address(address, &[2; 16]));
    }

    #[test]
    fn ten_thousand_addresses_of_one_prefix_share_one_identity() {
        let key = [7; 16];
        let first = Identity::of_address(parse("2001:db8:1:2::"), &key);
        for number in 0..10_000_u128 {
            let address = parse("2001:db8:1:2::");
            let IpAddr::V6(address) = address else { unreachable!() };
            let address = Ipv6Addr::from_bits(address.to_bits() | (number * 0x1_0000_0001_0000));
            assert_eq!(Identity::of_address(address.into(), &key), first);
        }
    }

    #[test]
    fn lanes_and_digits_come_from_the_whole_hash() {
        let identity = Identity { high: 0x0123_4567_89ab_cdef, low: 0xfedc_ba98_7654_3210 };
        assert_eq!(&identity.digits(), b"0123456789abcdeffedcba9876543210");
        assert_eq!(identity.lane(), 0x10);
        assert_eq!(identity.seed(), 0xfedc_ba98);
        assert_eq!("0123456789abcdeffedcba9876543210".parse(), Ok(identity));
        for wrong in [
            "",
            "0123456789abcdeffedcba987654321",
            "+123456789abcdeffedcba9876543210",
            "0123456789ABCDEFfedcba9876543210",
        ] {
            assert_eq!(wrong.parse::<Identity>(), Err(()), "{wrong}");
        }
    }
}
