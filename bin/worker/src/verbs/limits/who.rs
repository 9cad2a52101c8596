//! One client, as it is named on the command line. A secret is never an argument: everybody on the machine sees those.

use std::fmt;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use rate_limit::{KeyPart, Limiter, Policies, PolicySet, Request, Subject};

use crate::exit::Failure;

/// Longer keys are not taken from a file.
const MAX_KEY_BYTES: u64 = 16 * 1024;

/// Whom a verb is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    Address(IpAddr),
    User(String),
    /// The key of an application stands in a file, or comes from stdin.
    ApiKey(Option<PathBuf>),
    Header {
        /// In lower case.
        name: String,
        value: String,
    },
    /// The hash that logs show.
    Digits(String),
}

impl Who {
    /// What it is called in "counts by …".
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Address(_) => "address".to_owned(),
            Self::User(_) => "user".to_owned(),
            Self::ApiKey(_) => "api_key".to_owned(),
            Self::Header { name, .. } => format!("header:{name}"),
            Self::Digits(_) => "anything".to_owned(),
        }
    }

    /// The policies that count by this kind of key. A hash does not say what it was made of.
    pub(super) fn counting(&self, policies: &Policies) -> PolicySet {
        match self {
            Self::Address(_) => policies.counting_by(&[KeyPart::Address]),
            Self::User(_) => policies.counting_by(&[KeyPart::User]),
            Self::ApiKey(_) => policies.counting_by(&[KeyPart::ApiKey]),
            Self::Header { name, .. } => policies.counting_by(&[KeyPart::Header(name.clone())]),
            Self::Digits(_) => policies.all(),
        }
    }

    /// Its requests under the policies of `set`.
    pub(super) fn request(&self, limiter: &Limiter, set: PolicySet) -> anyhow::Result<Request> {
        // No policy of the set looks at the address of whoever is named by something else.
        let nobody = Subject::of_address(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(match self {
            Self::Address(address) => limiter.request(set, &Subject::of_address(*address)),
            Self::User(user) => limiter.request(set, &Subject { user: Some(user), ..nobody }),
            Self::ApiKey(file) => {
                let key = read_key(file.as_deref())?;
                limiter.request(set, &Subject { api_key: Some(&key), ..nobody })
            }
            Self::Header { name, value } => {
                let header = |wanted: &str| (wanted == name).then_some(value.as_bytes());
                limiter.request(set, &Subject { header: &header, ..nobody })
            }
            Self::Digits(digits) => {
                limiter.request_of_digits(set, digits).ok_or_else(|| Failure::usage("a hash has 32 digits"))?
            }
        })
    }
}

fn read_key(file: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    let mut key = Vec::new();
    match file {
        Some(path) => {
            let opened = std::fs::File::open(path);
            let read = opened.and_then(|file| file.take(MAX_KEY_BYTES).read_to_end(&mut key));
            read.with_context(|| format!("cannot read the API key from {}", path.display()))?;
        }
        None => {
            let read = std::io::stdin().lock().take(MAX_KEY_BYTES).read_to_end(&mut key);
            read.context("cannot read the API key from stdin")?;
        }
    }
    let key = key.trim_ascii();
    if key.is_empty() {
        return Err(Failure::usage("the API key is empty").into());
    }
    Ok(key.to_vec())
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_hash = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash {
            return Ok(Self::Digits(text.to_ascii_lowercase()));
        }
        match text.split_once(':') {
            Some(("address", address)) => {
                address.parse().map(Self::Address).map_err(|_| format!("`{address}` is no IP address"))
            }
            Some(("user", user)) if !user.is_empty() => Ok(Self::User(user.to_owned())),
            Some(("api_key", "-")) => Ok(Self::ApiKey(None)),
            Some(("api_key", source)) => {
                match source.strip_prefix('@') {
                    Some(path) if !path.is_empty() => Ok(Self::ApiKey(Some(path.into()))),
                    _ => Err("an API key is a secret, and arguments are not: api_key:@FILE or api_key:- for stdin"
                        .to_owned()),
                }
            }
            Some(("header", header)) => match header.split_once('=') {
                Some((name, value)) if !name.is_empty() => {
                    Ok(Self::Header { name: name.to_ascii_lowercase(), value: value.to_owned() })
                }
                _ => Err("expected header:NAME=VALUE".to_owned()),
            },
            _ => Err(
                "expected address:192.0.2.1, user:ID, api_key:@FILE, api_key:-, header:NAME=VALUE, or the 32 digits \
                      that logs show"
                    .to_owned(),
            ),
        }
    }
}

/// As it was named; an API key is not.
impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(formatter, "address:{address}"),
            Self::User(user) => write!(formatter, "user:{user}"),
            Self::ApiKey(_) => formatter.write_str("api_key"),
            Self::Header { name, value } => write!(formatter, "header:{name}={value}"),
            Self::Digits(digits) => formatter.write_str(digits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_named_by_what_policies_count_by_or_by_their_hash() {
        let header = |name: &str, value: &str| Who::Header { name: name.to_owned(), value: value.to_owned() };
        let cases = [
            ("address:192.0.2.1", Who::Address("192.0.2.1".parse().unwrap())),
            ("address:2001:db8::1", Who::Address("2001:db8::1".parse().unwrap())),
            ("user:a:b", Who::User("a:b".to_owned())),
            ("api_key:-", Who::ApiKey(None)),
            ("api_key:@/run/key", Who::ApiKey(Some("/run/key".into()))),
            ("header:X-Tenant=a=b", header("x-tenant", "a=b")),
            ("0123456789ABCDEF0123456789abcdef", Who::Digits("0123456789abcdef0123456789abcdef".to_owned())),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_names_nobody_is_refused_with_what_would() {
        let cases = [
            ("192.0.2.1", "expected address:192.0.2.1, user:ID"),
            ("0123", "or the 32 digits that logs show"),
            ("address:localhost", "`localhost` is no IP address"),
            ("user:", "user:ID"),
            ("api_key:s3cret", "api_key:@FILE"),
            ("api_key:@", "api_key:@FILE"),
            ("header:x-tenant", "header:NAME=VALUE"),
            ("header:=a", "header:NAME=VALUE"),
            ("route:/", "expected address:"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Who>().unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{text}: {error}");
        }
    }
}
