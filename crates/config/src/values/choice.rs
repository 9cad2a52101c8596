//! Values out of a short list.

use serde_json::json;

use crate::setting::{Kind, Scalar};

/// Which requests are logged one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those answered with 5xx.
    Errors,
    /// Every one.
    All,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// A set of response headers that tell clients about their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimitHeaders {
    /// `ratelimit` and `ratelimit-policy` as in draft-ietf-httpapi-ratelimit-headers-10.
    Draft10,
    /// `ratelimit` and `ratelimit-policy` as in draft -07.
    Draft7,
    /// `ratelimit-limit`, `ratelimit-remaining` and `ratelimit-reset` as in draft -06.
    Draft6,
    /// `x-ratelimit-limit`, `x-ratelimit-remaining` and `x-ratelimit-reset`.
    Legacy,
}

const ACCESS_LOGS: &[(&str, AccessLog)] =
    &[("off", AccessLog::Off), ("errors", AccessLog::Errors), ("all", AccessLog::All)];
const LOG_FORMATS: &[(&str, LogFormat)] = &[("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
const HEADERS: &[(&str, RateLimitHeaders)] = &[
    ("draft-10", RateLimitHeaders::Draft10),
    ("draft-7", RateLimitHeaders::Draft7),
    ("draft-6", RateLimitHeaders::Draft6),
    ("legacy", RateLimitHeaders::Legacy),
];

impl Scalar for AccessLog {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "\"off\", \"errors\" or \"all\"";

    fn parse(text: &str) -> Option<Self> {
        one_of(ACCESS_LOGS, text)
    }

    fn text(&self) -> String {
        name_in(ACCESS_LOGS, self)
    }

    fn schema() -> serde_json::Value {
        choices(ACCESS_LOGS)
    }
}

impl Scalar for LogFormat {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "\"pretty\" or \"json\"";

    fn parse(text: &str) -> Option<Self> {
        one_of(LOG_FORMATS, text)
    }

    fn text(&self) -> String {
        name_in(LOG_FORMATS, self)
    }

    fn schema() -> serde_json::Value {
        choices(LOG_FORMATS)
    }
}

impl Scalar for RateLimitHeaders {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "\"draft-10\", \"draft-7\", \"draft-6\" or \"legacy\"";

    fn parse(text: &str) -> Option<Self> {
        one_of(HEADERS, text)
    }

    fn text(&self) -> String {
        name_in(HEADERS, self)
    }

    fn schema() -> serde_json::Value {
        choices(HEADERS)
    }
}

/// The value with that name.
pub(crate) fn one_of<T: Copy>(choices: &[(&str, T)], text: &str) -> Option<T> {
    choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
}

/// The name of a value that is in the list.
pub(crate) fn name_in<T: PartialEq>(choices: &[(&str, T)], value: &T) -> String {
    let found = choices.iter().find(|(_, candidate)| candidate == value);
    found.map_or_else(String::new, |(name, _)| (*name).to_owned())
}

/// The JSON Schema of a list of names.
pub(crate) fn choices<T>(choices: &[(&str, T)]) -> serde_json::Value {
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    json!({ "enum": names })
}
