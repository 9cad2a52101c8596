//! Who sends a request, and what of it a policy counts by.

use std::net::IpAddr;

use crate::{
    config::{Key, KeyPart},
    identity::{Hasher, Identity},
};

/// What is known of whoever sends a request. What is not there, or not known yet, is `None`.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The client's address, as trusted proxies tell it.
    pub address: IpAddr,
    /// The authenticated user.
    pub user: Option<&'a str>,
    /// What the user has paid for.
    pub tier: Option<&'a str>,
    /// The key of an application, as it was sent.
    pub api_key: Option<&'a [u8]>,
    /// The route that the request takes.
    pub route: Option<&'a str>,
    /// Finds a header by its name in lower case.
    pub header: &'a dyn Fn(&str) -> Option<&'a [u8]>,
}

impl Subject<'_> {
    /// Somebody of whom only the address is known.
    pub fn of_address(address: IpAddr) -> Self {
        Self { address, user: None, tier: None, api_key: None, route: None, header: &|_| None }
    }

    fn value(&self, part: &KeyPart) -> Option<(u8, &[u8])> {
        match part {
            KeyPart::Address => None,
            KeyPart::User => self.user.map(|user| (b'u', user.as_bytes())),
            KeyPart::ApiKey => self.api_key.map(|key| (b'k', key)),
            KeyPart::Header(name) => (self.header)(name).map(|value| (b'h', value)),
            KeyPart::Route => self.route.map(|route| (b'r', route.as_bytes())),
        }
    }
}

/// How identities are made: the same in all workers that share limits.
pub(crate) struct Identities {
    pub(crate) key: [u8; 16],
    pub(crate) ipv6_prefix: u8,
}

impl Identities {
    /// The identity that `key` makes of `subject`.
    pub(crate) fn of(&self, key: &Key, subject: &Subject<'_>) -> Identity {
        let mut hasher = Hasher::new(&self.key);
        match key {
            Key::All(parts) => parts.iter().for_each(|part| self.add(&mut hasher, part, subject)),
            Key::First(parts) => {
                let is_there = |part: &&KeyPart| **part == KeyPart::Address || subject.value(part).is_some();
                let first = parts.iter().find(is_there).unwrap_or(&KeyPart::Address);
                self.add(&mut hasher, first, subject);
            }
        }
        hasher.finish()
    }

    fn add(&self, hasher: &mut Hasher, part: &KeyPart, subject: &Subject<'_>) {
        let Some((kind, value)) = subject.value(part) else {
            return hasher.address(subject.address, self.ipv6_prefix);
        };
        if let KeyPart::Header(name) = part {
            hasher.value(b'n', name.as_bytes());
        }
        hasher.value(kind, value);
    }
}

impl Key {
    pub(crate) fn parts(&self) -> &[KeyPart] {
        match self {
            Self::All(parts) | Self::First(parts) => parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITIES: Identities = Identities { key: [1; 16], ipv6_prefix: 56 };

    fn anybody<'a>() -> Subject<'a> {
        Subject::of_address("192.0.2.1".parse().unwrap())
    }

    fn all(parts: &[KeyPart]) -> Key {
        Key::All(parts.to_vec())
    }

    #[test]
    fn values_of_different_kinds_and_lists_never_look_alike() {
        let tenant = |name: &str| (name == "x-tenant").then_some(&b"ab"[..]);
        let zone = |name: &str| (name == "x-zone").then_some(&b"ab"[..]);
        let known = Subject { user: Some("ab"), api_key: Some(b"ab"), route: Some("ab"), ..anybody() };
        let with_tenant = Subject { header: &tenant, ..known };
        let with_zone = Subject { header: &zone, ..known };
        let header = |name: &str| KeyPart::Header(name.to_owned());
        let identities = [
            IDENTITIES.of(&all(&[KeyPart::Address]), &known),
            IDENTITIES.of(&all(&[KeyPart::User]), &known),
            IDENTITIES.of(&all(&[KeyPart::ApiKey]), &known),
            IDENTITIES.of(&all(&[KeyPart::Route]), &known),
            IDENTITIES.of(&all(&[header("x-tenant")]), &with_tenant),
            IDENTITIES.of(&all(&[header("x-zone")]), &with_zone),
            IDENTITIES.of(&all(&[KeyPart::User, KeyPart::Route]), &known),
            IDENTITIES.of(&all(&[KeyPart::Route, KeyPart::User]), &known),
            IDENTITIES
                .of(&all(&[KeyPart::User, KeyPart::Route]), &Subject { user: Some("a"), route: Some("bab"), ..known }),
            IDENTITIES
                .of(&all(&[KeyPart::User, KeyPart::Route]), &Subject { user: Some("aba"), route: Some("b"), ..known }),
        ];
        for (number, identity) in identities.iter().enumerate() {
            assert!(!identities[number + 1..].contains(identity), "number {number}");
        }
    }

    #[test]
    fn what_is_not_there_is_replaced_by_the_address() {
        let other = Subject::of_address("192.0.2.2".parse().unwrap());
        for parts in [&[KeyPart::User][..], &[KeyPart::User, KeyPart::Route], &[KeyPart::Header("x".to_owned())]] {
            assert_ne!(IDENTITIES.of(&all(parts), &anybody()), IDENTITIES.of(&all(parts), &other), "{parts:?}");
        }
        assert_eq!(
            IDENTITIES.of(&all(&[KeyPart::User]), &anybody()),
            IDENTITIES.of(&all(&[KeyPart::Address]), &anybody())
        );
    }

    #[test]
    fn the_first_that_is_there_counts_alone() {
        let key = Key::First(vec![KeyPart::User, KeyPart::ApiKey, KeyPart::Address]);
        let user = Subject { user: Some("u"), api_key: Some(b"k"), ..anybody() };
        assert_eq!(IDENTITIES.of(&key, &user), IDENTITIES.of(&all(&[KeyPart::User]), &user));
        let program = Subject { user: None, ..user };
        assert_eq!(IDENTITIES.of(&key, &program), IDENTITIES.of(&all(&[KeyPart::ApiKey]), &program));
        assert_eq!(IDENTITIES.of(&key, &anybody()), IDENTITIES.of(&all(&[KeyPart::Address]), &anybody()));
    }
}
