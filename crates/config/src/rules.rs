//! What must hold beyond the form of each value, and what deserves a warning.

mod doubtful;

use std::collections::HashSet;
use std::time::Duration;

pub(crate) use self::doubtful::warnings;
use crate::load::Layering;
use crate::settings::Settings;
use crate::values::RateLimitHeaders;

/// Workers are told in milliseconds that fit into 31 bits.
const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 24 * 3_600);

/// Reports every rule that the settings break.
pub(crate) fn check(layering: &mut Layering) {
    for (key, message) in broken(&layering.settings) {
        layering.reject(key, message);
    }
}

fn broken(settings: &Settings) -> Vec<(&'static str, &'static str)> {
    let mut broken = Vec::new();
    for (key, duration) in positive_durations(settings) {
        if duration.is_zero() {
            broken.push((key, "has to be longer than 0s"));
        }
    }
    let Settings { supervisor, http, redis, rate_limit, log, .. } = settings;
    let distinct: HashSet<_> = supervisor.listen.iter().map(ToString::to_string).collect();
    let with_admin = distinct.contains(&supervisor.admin_listen.to_string()) && supervisor.admin_listen.port() != 0;
    let is_token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_prefix = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:".contains(&byte);
    let rules = [
        ("supervisor.listen", supervisor.listen.is_empty(), "at least one address is needed"),
        ("supervisor.listen", has_duplicates(settings), "an address is named twice"),
        ("supervisor.admin_listen", with_admin, "the workers serve at this address already"),
        ("supervisor.kill_timeout", supervisor.kill_timeout > LONGEST_DRAIN, "is at most 24d"),
        ("http.max_connections", http.max_connections == 0, "has to be at least 1"),
        ("http.max_connections_per_ip", http.max_connections_per_ip == 0, "has to be at least 1"),
        (
            "http.client_ip_header",
            !http.client_ip_header.bytes().all(is_token),
            "is the name of one header, in lower case",
        ),
        ("log.file_size", log.file_size.bytes() == 0, "has to be larger than 0; `log.files = false` writes no files"),
        ("log.file_count", log.file_count == 0, "has to be at least 1; `log.files = false` writes no files"),
        ("rate_limit.ipv6_prefix", !matches!(rate_limit.ipv6_prefix, 32..=64 | 128), "is from 32 to 64, or 128"),
        (
            "rate_limit.headers",
            rate_limit.headers.iter().filter(|form| **form != RateLimitHeaders::Legacy).count() > 1,
            "the drafts use the same names for different things: choose one of them, and legacy beside it",
        ),
        (
            "redis.prefix",
            redis.prefix.len() > 32 || !redis.prefix.bytes().all(is_prefix),
            "is at most 32 letters, digits and `_`, `.`, `-`, `:`",
        ),
    ];
    broken.extend(rules.into_iter().filter(|rule| rule.1).map(|(key, _, message)| (key, message)));
    broken
}

fn positive_durations(settings: &Settings) -> [(&'static str, Duration); 9] {
    [
        ("supervisor.kill_timeout", settings.supervisor.kill_timeout),
        ("supervisor.ready_timeout", settings.supervisor.ready_timeout),
        ("supervisor.hang_timeout", settings.supervisor.hang_timeout),
        ("http.keep_alive", settings.http.keep_alive),
        ("http.handler_timeout", settings.http.handler_timeout),
        ("redis.command_timeout", settings.redis.command_timeout),
        ("rate_limit.timeout", settings.rate_limit.timeout),
        ("cache.ttl", settings.cache.ttl),
        ("cache.l1_ttl", settings.cache.l1_ttl),
    ]
}

/// Port 0 may be asked for as often as one likes.
fn has_duplicates(settings: &Settings) -> bool {
    let named = settings.supervisor.listen.iter().map(ToString::to_string);
    let named: Vec<_> = named.filter(|address| !address.ends_with(":0")).collect();
    named.iter().collect::<HashSet<_>>().len() < named.len()
}
