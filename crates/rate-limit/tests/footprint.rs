//! What identities cost: memory of a worker, and of Redis.

#![allow(clippy::unwrap_used, reason = "in a test an unexpected failure is a failed test")]
#![allow(clippy::print_stdout, reason = "shown with --nocapture")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rate_limit::{Algorithm, Config, Lease, Limiter, Policy, Subject};
use redis_store::{RedisStore, Role, Url};
use telemetry::Registry;
use test_support::{Redis, process};
use tokio::task::JoinSet;

const MEGABYTE: u64 = 1_000_000;

/// As many as ten minutes bring; a tenth of that shows as well whether memory is bounded.
fn identities() -> u32 {
    if std::env::var_os("BELLWETHER_LONG").is_some() { 1_000_000 } else { 150_000 }
}

fn policy(algorithm: Algorithm, lease: Lease) -> Policy {
    Policy { algorithm, lease, ..Policy::new("p", 1, Duration::from_secs(3600)) }
}

async fn limiter(redis: &Redis, policies: Vec<Policy>) -> Limiter {
    let url = Url::parse(&redis.unix_url()).unwrap();
    let store = RedisStore::connect(&redis_store::Config { url, command_timeout: Duration::from_secs(5) }, Role::State);
    store.connected().await;
    let config = Config { timeout: Duration::from_secs(5), ..Config::new("bw", [42; 16], policies) };
    Limiter::new(&config, &store, &Registry::new()).unwrap()
}

/// One request of each address, 200 at once, and a second one that is denied and remembered.
async fn visit(limiter: &Limiter, addresses: impl Iterator<Item = u32>) {
    let mut checks = JoinSet::new();
    for number in addresses {
        let (limiter, address) = (limiter.clone(), IpAddr::from(Ipv4Addr::from_bits(number)));
        checks.spawn(async move {
            let request = limiter.request(limiter.policies().all(), &Subject::of_address(address));
            limiter.check(&request).await;
            limiter.check(&request).await;
        });
        if checks.len() >= 200 {
            checks.join_next().await.unwrap().unwrap();
        }
    }
    checks.join_all().await;
}

// One test, because it looks at the memory of its process.
#[tokio::test]
async fn a_million_identities_leave_a_worker_small_and_cost_redis_hardly_more_than_their_keys() {
    let redis = Redis::start();
    let limiter_of_one = limiter(&redis, vec![policy(Algorithm::FixedWindow, Lease::Auto)]).await;
    visit(&limiter_of_one, 0..1_000).await;
    let idle = process::rss_bytes(std::process::id());
    visit(&limiter_of_one, 1_000..identities()).await;
    let grown = process::rss_bytes(std::process::id()).saturating_sub(idle);
    assert!(grown <= 15 * MEGABYTE, "{grown} bytes more");
    println!("{:.1} MB for {} identities", grown as f64 / 1e6, identities());
    redis.command(&["FLUSHALL"]);

    let algorithms = [
        Algorithm::FixedWindow,
        Algorithm::Gcra { burst: None },
        Algorithm::SlidingCounter,
        Algorithm::SlidingWindow,
        Algorithm::SlidingLog,
        Algorithm::Pacing { burst: 1, max_delay: Duration::from_secs(1) },
        Algorithm::Concurrency,
    ];
    for algorithm in algorithms {
        let limiter = limiter(&redis, vec![policy(algorithm, Lease::Off)]).await;
        let request = limiter.request(limiter.policies().all(), &Subject::of_address([192, 0, 2, 1].into()));
        let _held = limiter.check(&request).await;
        let key = redis.command(&["KEYS", "*"]);
        let bytes = |key: &str| redis.command(&["MEMORY", "USAGE", key]).parse::<u64>().unwrap();
        let other = key.replacen("bw", "wb", 1);
        redis.command(&["SET", &other, "", "PX", "60000"]);
        let beyond = bytes(&key).saturating_sub(bytes(&other));
        assert!(beyond <= 120, "{beyond} bytes with {algorithm:?}");
        println!("{beyond} bytes beyond the key with {algorithm:?}");
        redis.command(&["FLUSHALL"]);
    }
}
