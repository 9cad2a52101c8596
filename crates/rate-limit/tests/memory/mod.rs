//! A worker that remembers a denial and holds a grant.

use std::time::Duration;

use rate_limit::{Config, Lease, Limiter, Policy, Request, Source, Subject};
use redis_store::{RedisStore, Role, Url};
use telemetry::Registry;
use test_support::Redis;
use tokio::runtime::{Builder, Runtime};

/// The policy that is used up.
pub(crate) const DENIED: &str = "denied";
/// The policy that grants ahead.
pub(crate) const GRANTED: &str = "granted";

pub(crate) struct Worker {
    pub(crate) limiter: Limiter,
    pub(crate) runtime: Runtime,
    _redis: Redis,
}

impl Worker {
    pub(crate) fn start() -> Self {
        let redis = Redis::start();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let limiter = runtime.block_on(async {
            let url = Url::parse(&redis.unix_url()).unwrap();
            let settings = redis_store::Config { url, command_timeout: Duration::from_secs(5) };
            let store = RedisStore::connect(&settings, Role::State);
            store.connected().await;
            Limiter::new(&config(), &store, &Registry::new()).unwrap()
        });
        Self { limiter, runtime, _redis: redis }
    }

    /// A request of one client under a policy.
    pub(crate) fn request(&self, policy: &str) -> Request {
        let set = self.limiter.policies().named(policy).unwrap();
        self.limiter.request(set, &Subject::of_address([192, 0, 2, 1].into()))
    }

    /// Asks until denied, which is remembered.
    pub(crate) fn remember_denial(&self, request: &Request) {
        while self.runtime.block_on(self.limiter.check(request)).is_allowed() {}
    }

    /// Asks until so much is granted ahead that the next requests are admitted from it.
    pub(crate) fn hold_a_grant(&self, request: &Request) {
        while self.runtime.block_on(self.limiter.check(request)).source() != Source::Lease {}
    }
}

fn config() -> Config {
    let policy = |name, limit, lease| Policy { lease, ..Policy::new(name, limit, Duration::from_secs(24 * 3600)) };
    let policies = vec![policy(DENIED, 1, Lease::Off), policy(GRANTED, 1_000_000_000, Lease::Auto)];
    Config { timeout: Duration::from_secs(5), ..Config::new("bw", [42; 16], policies) }
}
