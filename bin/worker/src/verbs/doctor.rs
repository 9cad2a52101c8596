//! `worker doctor`: whether Redis and the database are as they should be. `supervisor doctor` asks for it and adds what it sees itself.
//!
//! The codes are promises. A check that cannot be made because another one failed is left out.

use std::time::Duration;

use config::Settings;
use redis_store::{Config, Examination};
use serde_json::{Value, json};
use store::{Schema, Store};
use telemetry::Registry;

use crate::settings;

/// Everything is asked at once and given up after this, so that the whole answer comes within two seconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many pings the latency is taken from.
const PINGS: usize = 20;

/// The oldest Redis that works: the cache reads its log with exclusive ranges.
const OLDEST_REDIS: (u32, u32) = (6, 2);

/// A healthy round trip on this machine, and to another one.
const LOCAL_LATENCY: Duration = Duration::from_millis(1);
const REMOTE_LATENCY: Duration = Duration::from_millis(5);

/// One thing that was looked at.
pub(super) struct Check {
    code: String,
    severity: Severity,
    summary: String,
    fix: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy)]
enum Severity {
    Ok,
    Warning,
    Error,
}

/// Makes the checks of one subject, whose name the codes begin with.
struct Subject(&'static str);

/// Looks at everything at once.
pub(super) async fn examine(settings: &Settings) -> Vec<Check> {
    let subject = Subject("redis");
    let (state, cache) = match settings::redis(settings) {
        Ok(configs) => configs,
        Err(error) => return vec![subject.error("reachable", error, "correct redis.url or redis.cache_url")],
    };
    let of_cache =
        async { if settings.redis.cache_url.is_some() { redis(&Subject("cache"), &cache).await } else { Vec::new() } };
    let (mut checks, of_cache, of_database) = tokio::join!(redis(&subject, &state), of_cache, database(settings));
    checks.extend(of_cache);
    checks.extend(of_database);
    checks
}

/// One JSON document, or a line for each.
pub(super) fn text(checks: &[Check], as_json: bool) -> String {
    if as_json {
        let checks: Vec<_> = checks.iter().map(Check::to_json).collect();
        return json!({ "schema": "bellwether.doctor/v1", "checks": checks }).to_string();
    }
    let lines: Vec<_> = checks.iter().map(Check::line).collect();
    lines.join("\n")
}

async fn redis(subject: &Subject, config: &Config) -> Vec<Check> {
    let url = &config.url;
    let examined = tokio::time::timeout(PATIENCE, redis_store::examine(config, PINGS)).await;
    let examination = match examined {
        Ok(Ok(examination)) => examination,
        Ok(Err(reason)) => return vec![subject.not_reached(url, reason)],
        Err(_) => return vec![subject.not_reached(url, format!("no answer in {PATIENCE:?}"))],
    };
    let mut checks = vec![subject.ok("reachable", format!("{url} answers")), redis_version(subject, &examination)];
    if subject.0 == "redis" {
        checks.push(eviction(subject, &examination.maxmemory_policy));
    }
    checks.push(latency(subject, &examination, url.is_local()));
    if url.exposes_password() {
        let summary = format!("the password for {url} crosses the network unencrypted");
        checks.push(subject.warning("password", summary, "use rediss://"));
    }
    checks
}

fn redis_version(subject: &Subject, examination: &Examination) -> Check {
    let version = &examination.version;
    let (major, minor) = OLDEST_REDIS;
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found >= OLDEST_REDIS {
        return subject.ok("version", format!("Redis {version}"));
    }
    let fix = format!("install Redis {major}.{minor} or newer, or Valkey");
    subject.error("version", format!("Redis {version} is too old"), &fix)
}

fn eviction(subject: &Subject, policy: &str) -> Check {
    if policy == "noeviction" {
        return subject.ok("eviction", "maxmemory-policy is noeviction");
    }
    subject.error(
        "eviction",
        format!("maxmemory-policy is {policy}: limits and other state vanish when the memory is full"),
        "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf; redis.cache_url may name another server that evicts",
    )
}

fn latency(subject: &Subject, examination: &Examination, is_local: bool) -> Check {
    let median = examination.round_trips.get(examination.round_trips.len() / 2).copied().unwrap_or_default();
    let summary = format!("a round trip takes {:.2} ms (median of {PINGS})", median.as_secs_f64() * 1_000.0);
    if median <= if is_local { LOCAL_LATENCY } else { REMOTE_LATENCY } {
        return subject.ok("latency", summary);
    }
    let fix = if is_local {
        "look for a busy processor, or for slow commands: redis-cli SLOWLOG GET"
    } else {
        "put Redis nearer, or look for slow commands: redis-cli SLOWLOG GET"
    };
    subject.warning("latency", summary, fix)
}

async fn database(settings: &Settings) -> Vec<Check> {
    let (subject, url) = (Subject("database"), &settings.database.url);
    // Looking must not create it.
    if let Some(file) = url.file().filter(|file| !file.exists()) {
        let summary = format!("{} does not exist yet", file.display());
        return vec![subject.error("schema", summary, "supervisor db migrate, or start with --migrate")];
    }
    let schema = async { Store::connect(&settings::database(settings), &Registry::new()).await?.schema().await };
    match tokio::time::timeout(PATIENCE, schema).await {
        Ok(Ok(schema)) => vec![subject.ok("reachable", format!("{url} answers")), database_schema(&subject, &schema)],
        Ok(Err(error)) => vec![subject.not_reached(url, error)],
        Err(_) => vec![subject.not_reached(url, format!("no answer in {PATIENCE:?}"))],
    }
}

fn database_schema(subject: &Subject, schema: &Schema) -> Check {
    match schema {
        Schema::Current => subject.ok("schema", "the tables fit this version"),
        Schema::Older { pending } => subject.error(
            "schema",
            format!("the tables are older than this version; pending: {}", pending.join(", ")),
            "supervisor db migrate, or start with --migrate",
        ),
        Schema::Newer { unknown } => subject.warning(
            "schema",
            format!("the tables are newer than this version; unknown here: {}", unknown.join(", ")),
            "run the newer version",
        ),
    }
}

impl Subject {
    fn ok(&self, what: &str, summary: impl ToString) -> Check {
        let code = format!("{}.{what}", self.0);
        Check { code, severity: Severity::Ok, summary: summary.to_string(), fix: None }
    }

    fn warning(&self, what: &str, summary: impl ToString, fix: &str) -> Check {
        Check { severity: Severity::Warning, fix: Some(fix.to_owned()), ..self.ok(what, summary) }
    }

    fn error(&self, what: &str, summary: impl ToString, fix: &str) -> Check {
        Check { severity: Severity::Error, fix: Some(fix.to_owned()), ..self.ok(what, summary) }
    }

    fn not_reached(&self, url: &impl ToString, reason: impl ToString) -> Check {
        let key = if self.0 == "cache" { "redis.cache_url".to_owned() } else { format!("{}.url", self.0) };
        let summary = format!("cannot reach {}: {}", url.to_string(), reason.to_string());
        self.error("reachable", summary, &format!("start it, or correct {key}"))
    }
}

impl Check {
    fn to_json(&self) -> Value {
        json!({ "code": self.code, "severity": self.severity.name(), "summary": self.summary, "fix": self.fix })
    }

    fn line(&self) -> String {
        format!("{} {}: {}", self.severity.name(), self.code, self.summary)
    }
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examination(version: &str, median_ms: u64) -> Examination {
        Examination {
            version: version.to_owned(),
            maxmemory_policy: "noeviction".to_owned(),
            round_trips: vec![Duration::ZERO, Duration::from_millis(median_ms), Duration::from_secs(9)],
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let cases = [("6.2.0", "ok"), ("7.0", "ok"), ("10.1.2", "ok"), ("6.0.16", "error"), ("", "error")];
        for (version, expected) in cases {
            let check = redis_version(&Subject("redis"), &examination(version, 0));
            assert_eq!(check.severity.name(), expected, "{version}");
        }
    }

    #[test]
    fn a_round_trip_may_take_longer_to_another_machine() {
        let cases = [(1, true, "ok"), (2, true, "warning"), (5, false, "ok"), (6, false, "warning")];
        for (milliseconds, is_local, expected) in cases {
            let check = latency(&Subject("redis"), &examination("7.2.4", milliseconds), is_local);
            assert_eq!(check.severity.name(), expected, "{milliseconds} {is_local}");
        }
    }
}
