//! Where the settings come from, and what each crate gets of them.

use std::time::Duration;

use config::{AccessLog, Assignment, LogFormat, Settings, Sources};
use edge::{Networks, TrustedProxies};
use rate_limit::Share;
use rate_limit::headers::Form;
use redis_store::Url;
use telemetry::{Format, LogConfig};

use crate::arguments::SettingsArguments;
use crate::divided::part;
use crate::exit::Failure;

/// A drain ends this much before the supervisor kills, so that the worker itself can say what it cut.
const DRAIN_MARGIN: Duration = Duration::from_secs(1);

/// Connections to the database per worker: reads are cached, so few queries run at once.
const DATABASE_CONNECTIONS: u32 = 2;

/// What the key is for that identities are hashed with: whoever looks them up derives the same.
pub(crate) const IDENTITIES: &str = "rate-limit identities";

/// The settings that the supervisor handed over, else those that this process finds for itself.
pub(crate) fn load(arguments: &SettingsArguments) -> Result<Settings, Failure> {
    if let Some(settings) = config::from_inherited().map_err(Failure::configuration)? {
        return Ok(settings);
    }
    let mut sources = Sources::of_this_process(arguments.config.clone());
    for assignment in &arguments.assignments {
        let parsed = Assignment::from_set(assignment);
        let parsed =
            parsed.ok_or_else(|| Failure::configuration(format!("--set {assignment}: a key needs `=` and a value")))?;
        sources.flags.push(parsed);
    }
    Ok(config::load(&sources).map_err(Failure::configuration)?.settings)
}

pub(crate) fn log(settings: &Settings, worker_id: Option<u32>) -> LogConfig {
    let fields = worker_id.map(|id| ("worker".to_owned(), format!("w{id}")));
    LogConfig {
        level: settings.log.level.clone(),
        format: match settings.log.format {
            LogFormat::Pretty => Format::Pretty,
            LogFormat::Json => Format::Json,
        },
        color: false,
        fields: fields.into_iter().collect(),
    }
}

pub(crate) fn edge(settings: &Settings, worker_id: u32) -> Result<edge::Config, Failure> {
    let http = &settings.http;
    let networks: Vec<String> = http.trusted_proxies.iter().map(ToString::to_string).collect();
    let trusted_proxies = TrustedProxies::parse(networks.iter().map(String::as_str), &http.client_ip_header);
    Ok(edge::Config {
        trusted_proxies: trusted_proxies.map_err(Failure::configuration)?,
        served_by: http.expose_worker.then(|| format!("w{worker_id}")),
        access_log: match http.access_log {
            AccessLog::Off => edge::AccessLog::Off,
            AccessLog::Errors => edge::AccessLog::Errors,
            AccessLog::All => edge::AccessLog::All,
        },
        keep_alive: http.keep_alive,
        handler_timeout: http.handler_timeout,
        max_connections: http.max_connections as usize,
        max_connections_per_ip: http.max_connections_per_ip as usize,
        drain_timeout: settings.supervisor.kill_timeout.saturating_sub(DRAIN_MARGIN),
        ..edge::Config::default()
    })
}

/// Redis in its two roles, which may be one server.
pub(crate) fn redis(settings: &Settings) -> Result<(redis_store::Config, redis_store::Config), Failure> {
    let redis = &settings.redis;
    let at = |url: &config::RedisUrl| {
        let url = Url::parse(url.expose()).map_err(Failure::configuration)?;
        Ok::<_, Failure>(redis_store::Config { url, command_timeout: redis.command_timeout })
    };
    Ok((at(&redis.url)?, at(redis.cache_url.as_ref().unwrap_or(&redis.url))?))
}

pub(crate) fn database(settings: &Settings) -> store::Config {
    store::Config { url: settings.database.url.expose().to_owned(), max_connections: DATABASE_CONNECTIONS }
}

/// The host's budget is divided over its workers.
pub(crate) fn cache(settings: &Settings, workers: u32) -> cache::Config {
    cache::Config {
        prefix: settings.redis.prefix.clone(),
        l1_bytes: part(settings.cache.l1_budget.bytes(), workers),
        ttl: settings.cache.ttl,
        l1_ttl: settings.cache.l1_ttl,
        disconnected_ttl: settings.cache.disconnected_ttl,
        ..cache::Config::default()
    }
}

pub(crate) fn rate_limit(settings: &Settings, share: Share, key: [u8; 16]) -> rate_limit::Config {
    let limits = &settings.rate_limit;
    let policies = if limits.enabled { limits.policies.iter().map(policy).collect() } else { Vec::new() };
    rate_limit::Config {
        prefix: settings.redis.prefix.clone(),
        key,
        timeout: limits.timeout,
        ipv6_prefix: limits.ipv6_prefix as u8,
        shadow: limits.shadow,
        policies,
        share,
    }
}

/// Who guesses passwords is told apart like who asks too much.
pub(crate) fn login(limits: &rate_limit::Config) -> rate_limit::LoginConfig {
    let rate_limit::Config { timeout, ipv6_prefix, .. } = *limits;
    rate_limit::LoginConfig { timeout, ipv6_prefix, ..rate_limit::LoginConfig::new(&limits.prefix, limits.key) }
}

fn policy(policy: &config::Policy) -> rate_limit::Policy {
    rate_limit::Policy {
        name: policy.name.to_string(),
        paths: Some(policy.paths.iter().map(|path| path.as_str().to_owned()).collect()),
        methods: policy.methods.iter().map(|method| method.as_str().to_owned()).collect(),
        key: match &policy.key {
            config::PolicyKey::All(parts) => rate_limit::Key::All(parts.iter().map(key_part).collect()),
            config::PolicyKey::First(parts) => rate_limit::Key::First(parts.iter().map(key_part).collect()),
        },
        algorithm: algorithm(policy),
        limit: policy.limit.into(),
        window: policy.window(),
        cost: policy.cost,
        tiers: policy.tiers.iter().map(|(name, limit)| (name.to_owned(), tier(limit))).collect(),
        count: match policy.count {
            config::Count::All => rate_limit::Count::All,
            config::Count::Success => rate_limit::Count::Success,
            config::Count::Failure => rate_limit::Count::Failure,
        },
        on_outage: match policy.on_outage {
            config::OnOutage::Local => rate_limit::OnOutage::Local,
            config::OnOutage::Open => rate_limit::OnOutage::Open,
            config::OnOutage::Closed => rate_limit::OnOutage::Closed,
        },
        lease: match policy.lease {
            config::Lease::Off => rate_limit::Lease::Off,
            config::Lease::Auto => rate_limit::Lease::Auto,
        },
        shadow: policy.shadow,
    }
}

fn tier(tier: config::Tier) -> rate_limit::Tier {
    match tier {
        config::Tier::Limit(limit) => rate_limit::Tier::Limit(limit.into()),
        config::Tier::Unlimited => rate_limit::Tier::Unlimited,
    }
}

fn algorithm(policy: &config::Policy) -> rate_limit::Algorithm {
    match policy.algorithm {
        config::Algorithm::FixedWindow => rate_limit::Algorithm::FixedWindow,
        config::Algorithm::Gcra => rate_limit::Algorithm::Gcra { burst: policy.burst.map(u64::from) },
        config::Algorithm::SlidingCounter => rate_limit::Algorithm::SlidingCounter,
        config::Algorithm::SlidingWindow => rate_limit::Algorithm::SlidingWindow,
        config::Algorithm::SlidingLog => rate_limit::Algorithm::SlidingLog,
        config::Algorithm::Pacing => rate_limit::Algorithm::Pacing {
            burst: policy.burst.unwrap_or(1).into(),
            max_delay: policy.max_delay.unwrap_or_default(),
        },
        config::Algorithm::Concurrency => rate_limit::Algorithm::Concurrency,
    }
}

fn key_part(part: &config::KeyPart) -> rate_limit::KeyPart {
    match part {
        config::KeyPart::Address => rate_limit::KeyPart::Address,
        config::KeyPart::User => rate_limit::KeyPart::User,
        config::KeyPart::ApiKey => rate_limit::KeyPart::ApiKey,
        config::KeyPart::Header(name) => rate_limit::KeyPart::Header(name.clone()),
        config::KeyPart::Route => rate_limit::KeyPart::Route,
    }
}

/// What HTTP adds to the policies.
pub(crate) fn limits(settings: &Settings) -> Result<api::LimitSettings, Failure> {
    let limits = &settings.rate_limit;
    let form = |form: &config::RateLimitHeaders| match form {
        config::RateLimitHeaders::Draft10 => Form::Draft10,
        config::RateLimitHeaders::Draft7 => Form::Draft7,
        config::RateLimitHeaders::Draft6 => Form::Draft6,
        config::RateLimitHeaders::Legacy => Form::Legacy,
    };
    let networks = |networks: &[config::Network]| {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        Networks::parse(networks.iter().map(String::as_str)).map_err(Failure::configuration)
    };
    Ok(api::LimitSettings {
        forms: limits.headers.iter().map(form).collect(),
        allow: networks(&limits.allow)?,
        deny: networks(&limits.deny)?,
    })
}

#[cfg(test)]
mod tests {
    use auth::Role;
    use config::{FileChoice, Sources, TIER_NAMES};

    use super::*;

    #[test]
    fn every_role_can_be_a_tier_and_nothing_else_can() {
        let roles = [Role::Admin, Role::Vendor, Role::Retailer].map(Role::name);
        assert_eq!(roles, TIER_NAMES);
    }

    #[test]
    fn every_policy_of_the_template_is_one_that_the_limiter_takes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bellwether.toml");
        let template = config::template();
        let (_, policies) = template.split_once("[[rate_limit.policy]]").unwrap();
        let (policies, _) = policies.split_once("\n[cache]").unwrap();
        let switched_on: Vec<_> = policies.lines().map(switched_on).collect();
        std::fs::write(&path, format!("[[rate_limit.policy]]{}", switched_on.join("\n"))).unwrap();
        let loaded = config::load(&Sources { file: FileChoice::Named(path), ..Sources::default() }).unwrap();
        let limits = rate_limit(&loaded.settings, Share { index: 0, workers: 1 }, [0; 16]);
        assert_eq!(limits.policies.len(), 8);
        let everything = &limits.policies[1];
        let tiers = [("admin", rate_limit::Tier::Unlimited), ("vendor", rate_limit::Tier::Limit(5_000))];
        assert_eq!(everything.tiers, tiers.map(|(name, tier)| (name.to_owned(), tier)));
        rate_limit::Policies::new(&limits).unwrap();
    }

    /// Takes the `# ` away from a table's head or key.
    fn switched_on(line: &str) -> &str {
        let Some(rest) = line.strip_prefix("# ") else { return line };
        if rest.contains(" = ") || rest.starts_with("[[") { rest } else { line }
    }
}
