//! A subscription that is killed, black-holed or silently gone: answers may be old, but never by more than a bound.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use test_support::{Redis, eventually, unique_prefix};

use crate::{
    harness::{Database, SOON, Setup, Worker},
    proxy::SubscriberProxy,
};

/// What the issue of a dead subscription may cost.
const BOUND: Duration = Duration::from_millis(2500);

const KEYS: [&str; 5] = ["lamp", "chair", "table", "shelf", "sofa"];

/// Reads and writes that go on until they are stopped, and the oldest answer that any read got.
struct Traffic {
    is_over: Arc<AtomicBool>,
    oldest: Vec<mpsc::Receiver<Duration>>,
    writes: mpsc::Receiver<u64>,
}

impl Traffic {
    fn start(workers: &[Worker], database: &Arc<Database>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let oldest = workers.iter().map(|worker| {
            let (database, is_over) = (Arc::clone(database), Arc::clone(&is_over));
            worker.start(async move |parts| {
                let mut oldest = Duration::ZERO;
                while !is_over.load(Ordering::SeqCst) {
                    for key in KEYS {
                        let start = Instant::now();
                        let hit = database.read(&parts, key).await.unwrap();
                        oldest = oldest.max(database.staleness(key, hit.value.as_deref().copied(), start));
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                oldest
            })
        });
        let oldest = oldest.collect();
        let (database, over) = (Arc::clone(database), Arc::clone(&is_over));
        let writes = workers[0].start(async move |parts| {
            let mut writes = 0;
            while !over.load(Ordering::SeqCst) {
                let key = KEYS[fastrand::usize(0..KEYS.len())];
                database.commit(key);
                parts.prices.invalidate(&[key]).await;
                writes += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            writes
        });
        Self { is_over, oldest, writes }
    }

    /// Ends it, and tells the oldest answer per worker.
    fn finish(self) -> Vec<Duration> {
        self.is_over.store(true, Ordering::SeqCst);
        assert!(self.writes.recv_timeout(SOON).unwrap() > 10);
        self.oldest.iter().map(|oldest| oldest.recv_timeout(SOON).unwrap()).collect()
    }
}

/// Lets writes go on: what is written in this time has to arrive in spite of the fault.
fn let_it_run(time: Duration) {
    let start = Instant::now();
    eventually(SOON, || start.elapsed() >= time);
}

fn assert_in_step(workers: &[Worker], database: &Arc<Database>) {
    for (worker, key) in workers.iter().flat_map(|worker| KEYS.map(|key| (worker, key))) {
        eventually(SOON, || worker.read(database, key).value.as_deref().copied() == database.value(key));
    }
}

#[test]
fn killed_subscriptions_make_no_answer_older_than_the_bound() {
    let redis = Redis::start();
    let workers = Setup::new(redis.url(), &unique_prefix()).workers(3);
    let database = Database::with(&KEYS);
    let traffic = Traffic::start(&workers, &database);
    for _ in 0..10 {
        let_it_run(Duration::from_millis(200));
        redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    }
    let oldest = traffic.finish();
    println!("subscriptions killed 10 times: oldest answers {oldest:?}");
    assert!(oldest.iter().all(|age| *age <= BOUND), "{oldest:?}");
    assert_in_step(&workers, &database);
}

#[test]
fn black_holed_subscriptions_make_no_answer_older_than_the_bound() {
    let redis = Redis::start();
    let proxy = SubscriberProxy::start(redis.address());
    let workers = Setup::new(proxy.url(), &unique_prefix()).workers(3);
    let database = Database::with(&KEYS);
    let traffic = Traffic::start(&workers, &database);
    let_it_run(Duration::from_millis(250));
    proxy.black_hole_subscriptions();
    let_it_run(Duration::from_millis(3500));
    proxy.heal();
    let_it_run(Duration::from_millis(250));
    let oldest = traffic.finish();
    println!("subscriptions black-holed: oldest answers {oldest:?}");
    assert!(oldest.iter().all(|age| *age <= BOUND), "{oldest:?}");
    assert!(oldest.iter().any(|age| *age >= Duration::from_millis(200)), "the hole was never noticed: {oldest:?}");
    assert_in_step(&workers, &database);
}

#[test]
fn subscriptions_that_the_server_forgets_are_noticed_and_made_again() {
    let redis = Redis::start();
    let proxy = SubscriberProxy::start(redis.address());
    let workers = Setup::new(proxy.url(), &unique_prefix()).workers(2);
    let database = Database::with(&KEYS);
    let traffic = Traffic::start(&workers, &database);
    let_it_run(Duration::from_millis(250));
    proxy.unsubscribe_behind_their_backs();
    let subscribers = || redis.command(&["PUBSUB", "NUMPAT"]).len() + redis.command(&["PUBSUB", "CHANNELS"]).len();
    let before = subscribers();
    eventually(SOON, || subscribers() > before);
    let_it_run(Duration::from_millis(250));
    let oldest = traffic.finish();
    println!("unsubscribed behind their backs: oldest answers {oldest:?}");
    assert!(oldest.iter().all(|age| *age <= BOUND), "{oldest:?}");
    assert_in_step(&workers, &database);
}

#[test]
fn a_lane_whose_log_no_longer_reaches_back_is_dropped() {
    let redis = Redis::start();
    let proxy = SubscriberProxy::start(redis.address());
    let prefix = unique_prefix();
    let reader = Setup::new(proxy.url(), &prefix).workers(1);
    let writer = Setup::new(redis.url(), &prefix).workers(1);
    let database = Database::with(&KEYS);
    assert_in_step(&reader, &database);
    proxy.black_hole_subscriptions();
    for key in KEYS {
        writer[0].write(&database, key);
    }
    for log in redis.command(&["KEYS", &format!("{prefix}:c:*:log")]).lines() {
        redis.command(&["DEL", log]);
    }
    let start = Instant::now();
    assert_in_step(&reader, &database);
    assert!(start.elapsed() <= BOUND, "{:?}", start.elapsed());
}
