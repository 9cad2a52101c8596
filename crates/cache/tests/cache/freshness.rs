//! Old values stand in where new ones are slow or cannot be had, and new ones are loaded before anybody has to wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cache::{Hit, Inspection, LoadError, Options, Source};
use test_support::{Histogram, Redis, eventually, unique_prefix};

use crate::harness::{Database, Parts, SOON, Setup, Worker};

pub(crate) const TTL: Duration = Duration::from_millis(200);

/// A database that may be slow or out of order.
#[derive(Default)]
struct Origin {
    rows: Database,
    delay_ms: AtomicU64,
    is_down: AtomicBool,
}

impl Origin {
    fn with_a_lamp() -> Arc<Self> {
        let source = Arc::new(Self::default());
        source.rows.commit("lamp");
        source
    }

    fn delay(&self, delay: Duration) {
        self.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    async fn load(&self) -> Result<Option<u64>, String> {
        tokio::time::sleep(Duration::from_millis(self.delay_ms.load(Ordering::SeqCst))).await;
        let value = self.rows.load("lamp");
        if self.is_down.load(Ordering::SeqCst) { Err("the database is down".into()) } else { Ok(value) }
    }
}

fn options(parts: &Parts) -> Options {
    Options { ttl: TTL, soft_timeout: Duration::from_millis(50), ..parts.options }
}

async fn read_in(parts: &Parts, source: &Arc<Origin>, options: Options) -> Result<Hit<u64>, LoadError> {
    let source = Arc::clone(source);
    parts.prices.get_or_load("lamp", &options, async move || source.load().await).await
}

fn read_with(worker: &Worker, source: &Arc<Origin>, change: fn(&mut Options)) -> Result<Hit<u64>, LoadError> {
    let source = Arc::clone(source);
    worker.run(async move |parts| {
        let mut options = options(&parts);
        change(&mut options);
        read_in(&parts, &source, options).await
    })
}

fn read(worker: &Worker, source: &Arc<Origin>) -> Hit<u64> {
    read_with(worker, source, |_| {}).unwrap()
}

/// Until each of these workers takes what Redis holds for `key` for old.
pub(crate) fn until_old<'a>(workers: impl IntoIterator<Item = &'a Worker>, key: &str) {
    for worker in workers {
        let is_old = |entry: Inspection| entry.readable.is_some_and(|readable| readable.fresh_for.is_zero());
        eventually(SOON, || worker.inspect(key).is_some_and(is_old));
    }
}

fn workers(count: usize) -> Vec<Worker> {
    Setup::new(Redis::shared().url(), &unique_prefix()).workers(count)
}

#[test]
fn while_a_new_value_is_slow_everybody_is_answered_with_the_old_one_and_one_load_serves_all() {
    let workers = workers(4);
    let source = Origin::with_a_lamp();
    // The last worker has nothing in memory: it finds the old value in Redis.
    workers[..3].iter().for_each(|worker| drop(read(worker, &source)));
    assert_eq!(source.rows.loads(), 1);
    until_old(&workers, "lamp");
    source.delay(Duration::from_secs(2));
    source.rows.commit("lamp");
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut answers = Vec::new();
    for worker in &workers {
        let source = Arc::clone(&source);
        answers.push(worker.start(async move |parts| {
            let (mut delays, mut count) = (Histogram::default(), 0);
            while Instant::now() < deadline {
                let start = Instant::now();
                let hit = read_in(&parts, &source, options(&parts)).await.unwrap();
                delays.record(start.elapsed());
                assert_eq!((hit.value.as_deref(), hit.stale), (Some(&1), true), "{hit:?}");
                count += 1;
            }
            (delays, count)
        }));
    }
    for answer in answers {
        let (delays, count) = answer.recv_timeout(SOON).unwrap();
        assert!(count >= 5, "{count} answers");
        // The machine may be busy with other tests.
        assert!(delays.quantile(0.5) <= Duration::from_millis(75), "{:?}", delays.quantile(0.5));
    }
    // The load went on, and its value reaches all.
    for worker in &workers {
        eventually(SOON, || read_with(worker, &source, long_lived).unwrap().value.as_deref() == Some(&2));
    }
    assert_eq!(source.rows.loads(), 2, "one load for the old value, and one for the new");
}

/// So that what was loaded stays for the rest of a test.
fn long_lived(options: &mut Options) {
    options.ttl = Duration::from_secs(60);
}

#[test]
fn while_loads_fail_the_old_value_stands_in_and_is_tried_again_once_per_throttle_by_all_workers() {
    let workers = workers(3);
    let source = Origin::with_a_lamp();
    workers.iter().for_each(|worker| drop(read(worker, &source)));
    until_old(&workers, "lamp");
    source.is_down.store(true, Ordering::SeqCst);
    let before = source.rows.loads();
    let began = Instant::now();
    let throttled = |options: &mut Options| options.fail_throttle = Duration::from_secs(2);
    while began.elapsed() < Duration::from_secs(3) {
        for worker in &workers {
            let hit = read_with(worker, &source, throttled).expect("the old value stands in");
            assert_eq!((hit.value.as_deref(), hit.stale), (Some(&1), true));
        }
    }
    let tries = source.rows.loads() - before;
    assert!((1..=3).contains(&tries), "{tries} tries in three seconds");
    // A failure without an old value is the caller's.
    let error = workers[0].run({
        let source = Arc::clone(&source);
        async move |parts: Parts| {
            let load = async move || source.load().await;
            parts.prices.get_or_load("another", &options(&parts), load).await.unwrap_err()
        }
    });
    assert!(matches!(error, LoadError::Failed(_)), "{error}");
}

#[test]
fn what_was_invalidated_never_stands_in() {
    let workers = workers(2);
    let source = Origin::with_a_lamp();
    workers.iter().for_each(|worker| drop(read(worker, &source)));
    until_old(&workers, "lamp");
    source.is_down.store(true, Ordering::SeqCst);
    assert!(read(&workers[0], &source).stale);
    workers[0].run(async move |parts| parts.prices.invalidate(&["lamp"]).await);
    assert!(read_with(&workers[0], &source, |_| {}).is_err());
    eventually(SOON, || read_with(&workers[1], &source, |_| {}).is_err());
}

#[test]
fn an_old_value_stands_in_no_longer_than_its_windows() {
    let worker = workers(1).remove(0);
    let source = Origin::with_a_lamp();
    let no_window = |options: &mut Options| {
        (options.stale_while_revalidate, options.stale_if_error) = (Duration::ZERO, Duration::ZERO);
    };
    let only_on_error = |options: &mut Options| options.stale_while_revalidate = Duration::ZERO;
    read(&worker, &source);
    until_old([&worker], "lamp");
    source.delay(Duration::from_millis(150));
    source.rows.commit("lamp");
    let hit = read_with(&worker, &source, only_on_error).unwrap();
    assert_eq!((hit.value.as_deref(), hit.source), (Some(&2), Source::Loader), "it waits for the new one");
    until_old([&worker], "lamp");
    source.is_down.store(true, Ordering::SeqCst);
    assert!(read_with(&worker, &source, no_window).is_err());
    assert!(read_with(&worker, &source, only_on_error).unwrap().stale);
}

#[test]
fn times_without_end_are_as_good_as_a_year() {
    let worker = workers(1).remove(0);
    let source = Origin::with_a_lamp();
    let endless = |options: &mut Options| {
        (options.ttl, options.l1_ttl, options.soft_timeout) = (Duration::MAX, Duration::MAX, Duration::MAX);
        (options.stale_while_revalidate, options.stale_if_error) = (Duration::MAX, Duration::MAX);
    };
    for source_of in [Source::Loader, Source::L1] {
        let hit = read_with(&worker, &source, endless).unwrap();
        assert_eq!((hit.value.as_deref(), hit.source), (Some(&1), source_of));
        assert!(hit.ttl > Duration::from_secs(300 * 24 * 3600), "{:?}", hit.ttl);
    }
}

#[test]
fn a_value_that_is_read_all_the_time_is_loaded_early_and_nobody_waits() {
    let workers = workers(4);
    let source = Origin::with_a_lamp();
    source.delay(Duration::from_millis(30));
    workers.iter().for_each(|worker| drop(read(worker, &source)));
    let (began, before) = (Instant::now(), source.rows.loads());
    let run = Duration::from_secs(4);
    let mut readers = Vec::new();
    for worker in &workers {
        let source = Arc::clone(&source);
        readers.push(worker.start(async move |parts| {
            let (mut waited, mut count) = (0, 0);
            while began.elapsed() < run {
                let hit = read_in(&parts, &source, Options { ttl: Duration::from_secs(1), ..options(&parts) }).await;
                waited += u32::from(hit.unwrap().source == Source::Loader);
                count += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (waited, count)
        }));
    }
    let (mut waited, mut count) = (0, 0);
    for reader in readers {
        let (of_one, all) = reader.recv_timeout(SOON).unwrap();
        (waited, count) = (waited + of_one, count + all);
    }
    let loads = source.rows.loads() - before;
    // With 4,000 reads a second and loads of 30 ms the first trigger comes about 140 ms before the end of a second.
    assert!((3..=8).contains(&loads), "{loads} loads in four seconds");
    // The first one, from before the run, lived 200 ms.
    assert!(waited <= 8, "{waited} of {count} reads waited for a load");
}
