//! `[[rate_limit.policy]]`: what one limit says.

mod key;
mod table;
mod tiers;

use std::fmt;
use std::time::Duration;

use serde_json::json;

pub use self::key::PolicyKey;
pub use self::tiers::{TIER_NAMES, Tier, Tiers};
use crate::inherited::as_json;
use crate::setting::{Kind, Scalar};
use crate::tables::{self, NAME_PATTERN, is_name};
use crate::values::{choices, name_in, one_of};

/// One named limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Appears in headers and metrics; unique.
    pub name: PolicyName,
    /// Which paths it applies to; one that matches is enough. Empty means none: it applies only where code names it.
    pub paths: Vec<PathGlob>,
    /// Which methods it applies to; empty means all.
    pub methods: Vec<Method>,
    /// Whose requests are counted together: those that agree in all of these, or in the first that they have.
    pub key: PolicyKey,
    /// How they are counted.
    pub algorithm: Algorithm,
    /// Requests per window, or at the same time; 0 denies all.
    pub limit: u32,
    /// From 1 ms to 366 days; absent only for those at the same time, see [`Policy::window`].
    pub window: Option<Duration>,
    /// Requests at once, for a bucket and for pacing; as many as the limit, or one for pacing, if it is not given.
    pub burst: Option<u32>,
    /// How long pacing holds a request up at most.
    pub max_delay: Option<Duration>,
    /// What a request counts for; at least 1.
    pub cost: u32,
    /// Other limits for some tiers.
    pub tiers: Tiers,
    /// Which answers count.
    pub count: Count,
    /// Whether a worker may take requests ahead.
    pub lease: Lease,
    /// Whether it only counts and reports.
    pub shadow: bool,
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

/// One thing that tells requests apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    /// The client's address.
    Address,
    /// The authenticated user.
    User,
    /// The key of an application, as it was sent.
    ApiKey,
    /// The value of a header, by its name in lower case.
    Header(String),
    /// The route.
    Route,
}

/// How requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// In windows of fixed length that begin at a time of each client's own.
    FixedWindow,
    /// A bucket that is refilled evenly.
    Gcra,
    /// This window, and the last one by the part of it that the sliding window still covers.
    SlidingCounter,
    /// Never above the limit in any window, counted in tenths of it.
    SlidingWindow,
    /// Never above the limit in any window, to the microsecond.
    SlidingLog,
    /// Requests beyond the burst are held up until their turn comes.
    Pacing,
    /// Requests at the same time.
    Concurrency,
}

/// Which requests count, by how they were answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Every one.
    All,
    /// Those that succeeded.
    Success,
    /// Those that failed.
    Failure,
}

/// What happens to requests while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutage {
    /// The limit is divided among the workers, and each enforces its share.
    Local,
    /// They pass.
    Open,
    /// They are turned away as unavailable.
    Closed,
}

/// Whether a worker may take requests ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// No.
    Off,
    /// When a client is busy and its limit far from reached.
    Auto,
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

/// How long a worker that has vanished keeps its units, where the policy does not say.
const CONCURRENCY_WINDOW: Duration = Duration::from_secs(5);

impl Policy {
    /// The length of a window; for units at the same time how long a worker that has vanished keeps them.
    pub fn window(&self) -> Duration {
        self.window.unwrap_or(CONCURRENCY_WINDOW)
    }

    /// The policy with all its defaults, in the words of a configuration file. What it does not have is absent.
    pub fn to_json(&self) -> serde_json::Value {
        as_json(tables::value(std::slice::from_ref(self)))[0].take()
    }
}

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("fixed_window", Algorithm::FixedWindow),
    ("gcra", Algorithm::Gcra),
    ("sliding_counter", Algorithm::SlidingCounter),
    ("sliding_window", Algorithm::SlidingWindow),
    ("sliding_log", Algorithm::SlidingLog),
    ("pacing", Algorithm::Pacing),
    ("concurrency", Algorithm::Concurrency),
];
const COUNTS: &[(&str, Count)] = &[("all", Count::All), ("success", Count::Success), ("failure", Count::Failure)];
const ON_OUTAGE: &[(&str, OnOutage)] =
    &[("local", OnOutage::Local), ("open", OnOutage::Open), ("closed", OnOutage::Closed)];
const LEASES: &[(&str, Lease)] = &[("off", Lease::Off), ("auto", Lease::Auto)];

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

impl Scalar for Algorithm {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "\"fixed_window\", \"gcra\", \"sliding_counter\", \"sliding_window\", \"sliding_log\", \"pacing\" or \"concurrency\"";

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

impl Scalar for Count {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "\"all\", \"success\" or \"failure\"";

    fn parse(text: &str) -> Option<Self> {
        one_of(COUNTS, text)
    }

    fn text(&self) -> String {
        name_in(COUNTS, self)
    }

    fn schema() -> serde_json::Value {
        choices(COUNTS)
    }
}

impl Scalar for OnOutage {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "\"local\", \"open\" or \"closed\"";

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

impl Scalar for Lease {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "\"off\" or \"auto\"";

    fn parse(text: &str) -> Option<Self> {
        one_of(LEASES, text)
    }

    fn text(&self) -> String {
        name_in(LEASES, self)
    }

    fn schema() -> serde_json::Value {
        choices(LEASES)
    }
}
