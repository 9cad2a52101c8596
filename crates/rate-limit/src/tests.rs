//! Tests against a real Redis.

mod exactness;
mod features;
mod headers;
mod login;
mod model;
mod outages;
mod scenarios;

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use redis_store::{RedisStore, Role, Url};
use telemetry::Registry;
use test_support::{eventually_async, unique_prefix};
use tokio::{runtime, task::JoinSet};

use crate::{
    Algorithm, Config, Count, Decision, Key, KeyPart, Lease, Limiter, OnOutage, Policy, PolicySet, Request, Share,
    Source, Subject,
};

/// So long that no test sees its end.
const LONG: Duration = Duration::from_secs(300 * 24 * 3600);
/// Far beyond what anything takes, also on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

fn policy(name: &str, limit: u64, window: Duration) -> Policy {
    Policy::new(name, limit, window)
}

fn config(policies: Vec<Policy>) -> Config {
    Config::new(&unique_prefix(), [42; 16], policies)
}

/// Settings for when Redis is there: on a machine that is busy with other things a wait of 25 ms is no proof of an
/// outage.
fn patient(policies: Vec<Policy>) -> Config {
    Config { timeout: Duration::from_secs(5), ..config(policies) }
}

/// A limiter that is connected, and its metrics.
async fn limiter(config: Config, url: &str) -> (Limiter, Registry) {
    let (limiter, registry) = limiter_alone(config, url).await;
    eventually_async(PATIENCE, async || limiter.is_exact()).await;
    (limiter, registry)
}

/// A limiter whose Redis may be away.
async fn limiter_alone(config: Config, url: &str) -> (Limiter, Registry) {
    let settings = redis_store::Config { url: Url::parse(url).unwrap(), command_timeout: Duration::from_millis(300) };
    let store = RedisStore::connect(&settings, Role::State);
    store.first_attempt().await;
    let registry = Registry::new();
    (Limiter::new(&config, &store, &registry).unwrap(), registry)
}

fn client(number: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

/// A request of an address under all policies.
fn request(limiter: &Limiter, address: IpAddr) -> Request {
    request_under(limiter, limiter.policies().all(), address)
}

fn request_under(limiter: &Limiter, set: PolicySet, address: IpAddr) -> Request {
    limiter.request(set, &Subject::of_address(address))
}

async fn check(limiter: &Limiter, address: IpAddr) -> Decision {
    limiter.check(&request(limiter, address)).await
}

/// `requests` checks of one address, all waiting at once, in order of arrival.
async fn check_at_once(limiter: &Limiter, address: IpAddr, requests: usize) -> Vec<Decision> {
    let mut checks = JoinSet::new();
    for number in 0..requests {
        let limiter = limiter.clone();
        checks.spawn(async move { (number, check(&limiter, address).await) });
    }
    let mut decisions = checks.join_all().await;
    decisions.sort_by_key(|(number, _)| *number);
    decisions.into_iter().map(|(_, decision)| decision).collect()
}

fn allowed(decisions: &[Decision]) -> usize {
    decisions.iter().filter(|decision| decision.is_allowed()).count()
}

/// The value of a counter with these labels.
fn counted(registry: &Registry, line: &str) -> u64 {
    let text = registry.snapshot().render();
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse::<f64>().ok());
    value.unwrap_or(0.0) as u64
}

/// Runs `work` for each of `workers` at the same time, each on a thread and a runtime of its own.
fn on_workers<F, T>(workers: u32, work: F) -> Vec<T>
where
    F: AsyncFn(Share) -> T + Sync,
    T: Send,
{
    let run = |index| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(Share { index, workers }))
    };
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..workers).map(|index| scope.spawn(move || run(index))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Where workers wait for one another; unlike a barrier it gives up when one of them does not come.
struct Gate {
    expected: u32,
    arrived: AtomicU32,
}

impl Gate {
    fn new(expected: u32) -> Self {
        Self { expected, arrived: AtomicU32::new(0) }
    }

    async fn pass(&self) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let end = Instant::now() + PATIENCE;
        while self.arrived.load(Ordering::SeqCst) < self.expected {
            assert!(Instant::now() < end, "a worker did not come");
            tokio::task::yield_now().await;
        }
    }
}

fn assert_source(decisions: &[Decision], source: Source) {
    for decision in decisions {
        assert_eq!(decision.source(), source, "{decision:?}");
    }
}
