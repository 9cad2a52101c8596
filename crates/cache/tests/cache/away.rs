//! Redis is frozen or gone: reads are answered all the same, loads are few, and everything resumes when it is back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cache::{Config, Invalidation, Source};
use test_support::{Histogram, Redis, eventually, unique_prefix};

use crate::{
    harness::{Database, SOON, Setup, Worker},
    held::Held,
};

const DISCONNECTED_TTL: Duration = Duration::from_secs(1);
const OUTAGE: Duration = Duration::from_secs(5);

fn setup(redis: &Redis) -> Setup {
    let mut setup = Setup::new(redis.url(), &unique_prefix());
    setup.command_timeout = Duration::from_millis(300);
    setup.config = Config { disconnected_ttl: DISCONNECTED_TTL, ..setup.config };
    setup
}

/// Reads one key as fast as a client would until told to stop; gives the delays, and the start of every load.
fn read_on(
    worker: &Worker,
    database: &Arc<Database>,
    is_over: &Arc<AtomicBool>,
) -> std::sync::mpsc::Receiver<(Histogram, Vec<Instant>)> {
    let (database, is_over) = (Arc::clone(database), Arc::clone(is_over));
    worker.start(async move |parts| {
        let (mut delays, mut loads) = (Histogram::default(), Vec::new());
        while !is_over.load(Ordering::SeqCst) {
            let start = Instant::now();
            let hit = database.read(&parts, "lamp").await.expect("reads are answered while Redis is away");
            delays.record(start.elapsed());
            if hit.source == Source::Loader {
                loads.push(start);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (delays, loads)
    })
}

fn survives_an_outage(redis: &Redis, break_it: impl FnOnce(), mend_it: impl FnOnce()) {
    let workers = setup(redis).workers(2);
    let database = Database::with(&["lamp"]);
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = workers.iter().map(|worker| read_on(worker, &database, &is_over)).collect();
    eventually(SOON, || database.loads() == 1);

    let broken = Instant::now();
    break_it();
    assert_eq!(workers[0].write(&database, "lamp"), Invalidation::Queued);
    assert_eq!(workers[0].read(&database, "lamp").value.as_deref(), Some(&2), "the writer sees its own write");
    // The other worker trusts its memory no longer than it may.
    eventually(SOON, || workers[1].read(&database, "lamp").value.as_deref() == Some(&2));
    let noticed = broken.elapsed();
    assert!(noticed <= DISCONNECTED_TTL + Duration::from_secs(2), "{noticed:?}");
    eventually(SOON, || broken.elapsed() >= OUTAGE);

    mend_it();
    let mended = Instant::now();
    assert_eq!(eventually_published(&workers[0], &database), Invalidation::Published);
    for worker in &workers {
        eventually(SOON, || {
            let hit = worker.read(&database, "lamp");
            hit.shared && hit.value.as_deref().copied() == database.value("lamp")
        });
    }
    let resumed = mended.elapsed();
    is_over.store(true, Ordering::SeqCst);
    println!("resumed after {resumed:?}");
    assert!(resumed <= Duration::from_secs(2), "{resumed:?}");
    for reader in readers {
        let (delays, loads) = reader.recv_timeout(SOON).unwrap();
        println!("reads during the outage: p99 {:?}, max {:?}; {} loads", delays.p99(), delays.max(), loads.len());
        assert!(delays.p99() <= Duration::from_millis(150), "{:?}", delays.p99());
        let during: Vec<Instant> = loads.into_iter().filter(|at| *at > broken && *at < mended).collect();
        assert!(during.len() <= most_loads(), "{} loads in {OUTAGE:?}", during.len());
    }
}

/// One per `disconnected_ttl`, one more because an outage does not begin with a period, and one for the write.
fn most_loads() -> usize {
    OUTAGE.div_duration_f64(DISCONNECTED_TTL) as usize + 2
}

fn eventually_published(worker: &Worker, database: &Arc<Database>) -> Invalidation {
    eventually(SOON, || {
        let outcome = worker.write(database, "lamp");
        (outcome == Invalidation::Published).then_some(outcome)
    })
}

#[test]
fn a_frozen_redis_delays_nobody_and_everything_resumes() {
    let redis = Redis::start();
    survives_an_outage(&redis, || redis.stop(), || redis.cont());
}

#[test]
fn a_killed_redis_delays_nobody_and_everything_resumes() {
    let redis = Redis::start();
    survives_an_outage(&redis, || redis.kill(), || redis.restart());
}

#[test]
fn an_invalidation_during_an_outage_reaches_the_others_when_redis_is_back() {
    let redis = Redis::start();
    // Long trust: what the others answer with changes only because they are told.
    let mut setup = setup(&redis);
    setup.config.disconnected_ttl = Duration::from_secs(60);
    let workers = setup.workers(2);
    let database = Database::with(&["lamp"]);
    for worker in &workers {
        worker.read(&database, "lamp");
    }
    redis.stop();
    assert_eq!(workers[0].write(&database, "lamp"), Invalidation::Queued);
    assert_eq!(workers[1].read(&database, "lamp").value.as_deref(), Some(&1));
    redis.cont();
    let mended = Instant::now();
    eventually(SOON, || workers[1].read(&database, "lamp").value.as_deref() == Some(&2));
    assert!(mended.elapsed() <= Duration::from_secs(2), "{:?}", mended.elapsed());
}

#[test]
fn a_slow_load_overtaken_by_an_invalidation_is_not_kept_while_redis_is_away() {
    let redis = Redis::start();
    let workers = setup(&redis).workers(1);
    redis.kill();
    for round in 0..20 {
        let key = format!("lamp-{round}");
        let database = Database::with(&[&key]);
        let slow = Held::start(&workers[0], &database, &key);
        assert_eq!(workers[0].write(&database, &key), Invalidation::Queued);
        let eager = fastrand::bool().then(|| workers[0].read(&database, &key));
        assert_eq!(slow.finish().value.as_deref(), Some(&1));
        assert!(eager.is_none_or(|hit| hit.value.as_deref() == Some(&2)));
        assert_eq!(workers[0].read(&database, &key).value.as_deref(), Some(&2), "round {round}");
    }
}

#[test]
fn more_invalidations_than_can_be_queued_empty_their_lanes_when_redis_is_back() {
    let redis = Redis::start();
    let mut setup = setup(&redis);
    setup.config.disconnected_ttl = Duration::from_secs(60);
    let workers = setup.workers(2);
    let keys: Vec<String> = (0..10_500).map(|number| format!("lamp-{number}")).collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let sample = [0, 5_000, 10_000, 10_400, 10_499].map(|at| names[at]);
    let database = Database::with(&names);
    for key in sample {
        workers[1].read(&database, key);
    }
    redis.stop();
    let written = (Arc::clone(&database), keys.clone());
    let outcome = workers[0].run(async move |parts| {
        let (database, keys) = written;
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        for key in &keys {
            database.commit(key);
        }
        parts.prices.invalidate(&keys).await
    });
    assert_eq!(outcome, Invalidation::Queued);
    redis.cont();
    for key in sample {
        eventually(SOON, || workers[1].read(&database, key).value.as_deref() == Some(&2));
    }
    eventually(SOON, || workers[0].metric("bellwether_cache_pending_invalidations") == 0.0);
}

#[test]
fn a_worker_that_starts_without_redis_serves_and_joins_in_later() {
    let redis = Redis::start();
    redis.kill();
    let worker = setup(&redis).worker();
    let database = Database::with(&["lamp"]);
    assert_eq!(worker.read(&database, "lamp").source, Source::Loader);
    assert_eq!(worker.read(&database, "lamp").source, Source::L1);
    redis.restart();
    eventually(SOON, || worker.read(&database, "lamp").shared);
}
