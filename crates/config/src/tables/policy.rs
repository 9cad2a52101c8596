//! `[[rate_limit.policy]]`: what one limit says.

mod table;

use std::fmt;
use std::time::Duration;

use serde_json::json;

use crate::setting::{Kind, Scalar};
use crate::tables::{NAME_PATTERN, is_name};
use crate::values::{choices, name_in, one_of};

/// One named limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Appears in headers and metrics; unique.
    pub name: PolicyName,
    /// Which paths it applies to; one that matches is enough.
    pub paths: Vec<PathGlob>,
    /// Which methods it applies to; empty means all.
    pub methods: Vec<Method>,
    /// Whose requests are counted together.
    pub key: PolicyKey,
    /// How they are counted.
    pub algorithm: Algorithm,
    /// Requests per window; at least 1.
    pub limit: u32,
    /// The length of a window; at least a second.
    pub window: Duration,
    /// What happens while Redis is away.
    pub on_outage: OnOutage,
}

/// A policy's name: 1 to 64 letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicyName(String);

/// A path with wildcards: `*` stands for a part of one segment, `**` for any number of segments, so `/x/**` matches `/x` too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGlob(String);

/// An HTTP method, in capitals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method(String);

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKey {
    /// Those of one client address.
    Address,
}

/// How requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// In windows of fixed length that begin at a time of each client's own.
    FixedWindow,
}

/// What happens to requests while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutage {
    /// The limit is divided among the workers, and each enforces its share.
    Local,
}

impl PolicyName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PathGlob {
    /// The pattern as text; begins with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Method {
    /// The method as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const KEYS: &[(&str, PolicyKey)] = &[("address", PolicyKey::Address)];
const ALGORITHMS: &[(&str, Algorithm)] = &[("fixed_window", Algorithm::FixedWindow)];
const ON_OUTAGE: &[(&str, OnOutage)] = &[("local", OnOutage::Local)];

impl Scalar for PolicyName {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a name of 1 to 64 letters, digits, `-` and `_`";

    fn parse(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": NAME_PATTERN })
    }
}

impl Scalar for PathGlob {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a path such as \"/api/v1/products/**\", with `**` alone between slashes";

    fn parse(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
        let is_segment = |segment: &str| segment == "**" || !segment.contains("**");
        let is_valid = text.starts_with('/') && text.bytes().all(is_plain) && text.split('/').all(is_segment);
        is_valid.then(|| Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^/" })
    }
}

impl Scalar for Method {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

    fn parse(text: &str) -> Option<Self> {
        METHODS.contains(&text).then(|| Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }

    fn schema() -> serde_json::Value {
        json!({ "enum": METHODS })
    }
}

impl Scalar for PolicyKey {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "\"address\", the only key this version supports";

    fn parse(text: &str) -> Option<Self> {
        one_of(KEYS, text)
    }

    fn text(&self) -> String {
        name_in(KEYS, self)
    }

    fn schema() -> serde_json::Value {
        choices(KEYS)
    }
}

impl Scalar for Algorithm {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "\"fixed_window\", the only algorithm this version supports";

    fn parse(text: &str) -> Option<Self> {
        one_of(ALGORITHMS, text)
    }

    fn text(&self) -> String {
        name_in(ALGORITHMS, self)
    }

    fn schema() -> serde_json::Value {
        choices(ALGORITHMS)
    }
}

impl Scalar for OnOutage {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "\"local\", the only behaviour this version supports";

    fn parse(text: &str) -> Option<Self> {
        one_of(ON_OUTAGE, text)
    }

    fn text(&self) -> String {
        name_in(ON_OUTAGE, self)
    }

    fn schema() -> serde_json::Value {
        choices(ON_OUTAGE)
    }
}
