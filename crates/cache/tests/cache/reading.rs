//! One load per key, whatever happens to those who wait for it.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use cache::{Caches, Hit, LoadError, Options, Source};
use test_support::{Redis, eventually, unique_prefix};

use crate::harness::{Database, SOON, Setup, Worker};

fn setup() -> Setup {
    Setup::new(Redis::shared().url(), &unique_prefix())
}

#[test]
fn the_handles_may_be_shared_between_threads() {
    fn assert_shareable<T: Send + Sync + 'static>() {}
    assert_shareable::<Caches>();
    assert_shareable::<cache::Cache<String>>();
    assert_shareable::<Hit<String>>();
}

#[test]
fn three_reads_of_one_row_are_one_load() {
    let workers = setup().workers(2);
    let database = Database::with(&["lamp"]);
    let sources = [0, 0, 1].map(|worker: usize| {
        let hit = workers[worker].read(&database, "lamp");
        assert_eq!(hit.value.as_deref(), Some(&1));
        assert!(hit.shared && hit.ttl > Duration::from_secs(20), "{hit:?}");
        hit.source
    });
    assert_eq!(sources, [Source::Loader, Source::L1, Source::L2]);
    assert_eq!(database.loads(), 1);
}

#[test]
fn every_level_counts_its_answers() {
    let workers = setup().workers(1);
    let database = Database::with(&["lamp"]);
    let count = |tier: &str, result: &str| {
        let labels = format!("namespace=\"price\",result=\"{result}\",tier=\"{tier}\"");
        workers[0].metric(&format!("bellwether_cache_requests_total{{{labels}}}"))
    };
    let all = || [count("l1", "hit"), count("l1", "miss"), count("l2", "miss"), count("loader", "value")];
    let before = all();
    for _ in 0..5 {
        workers[0].read(&database, "lamp");
    }
    let after = all();
    let differences: Vec<f64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(differences, [4.0, 1.0, 1.0, 1.0]);
}

#[test]
fn those_who_wait_for_another_worker_are_woken_when_it_is_done() {
    let workers = setup().workers(2);
    let mut delays = Vec::new();
    // Without the message they would ask again within a quarter of a second.
    for round in 0..5 {
        let key = format!("lamp-{round}");
        let database = Database::with(&[&key]);
        let (started, has_started) = std::sync::mpsc::channel();
        let (slow, of_loader) = (Arc::clone(&database), key.clone());
        let loading = workers[0].start(async move |parts| {
            let key = of_loader.clone();
            let load = async move || {
                started.send(()).unwrap();
                // A slow database, so that the other worker asks rarely by now.
                tokio::time::sleep(Duration::from_millis(700)).await;
                Ok::<_, LoadError>(slow.load(&of_loader))
            };
            parts.prices.get_or_load(&key, &parts.options, load).await.unwrap();
            Instant::now()
        });
        has_started.recv_timeout(SOON).unwrap();
        assert_eq!(workers[1].read(&database, &key).source, Source::L2);
        delays.push(loading.recv_timeout(SOON).unwrap().elapsed());
        assert_eq!(database.loads(), 1);
    }
    println!("woken after {delays:?}");
    assert!(delays.iter().any(|delay| *delay <= Duration::from_millis(20)), "{delays:?}");
}

#[test]
fn a_thousand_concurrent_misses_on_four_workers_are_one_load() {
    const CALLERS: usize = 250;
    let workers = setup().workers(4);
    let database = Database::with(&["lamp"]);
    let arrived = Arc::new(AtomicUsize::new(0));
    let everybody = CALLERS * workers.len();
    let answers: Vec<_> = workers
        .iter()
        .flat_map(|worker| {
            (0..CALLERS).map(|_| {
                let (database, arrived) = (Arc::clone(&database), Arc::clone(&arrived));
                worker.start(async move |parts| {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    let load = async move || {
                        while arrived.load(Ordering::SeqCst) < everybody {
                            tokio::task::yield_now().await;
                        }
                        Ok::<_, LoadError>(database.load("lamp"))
                    };
                    parts.prices.get_or_load("lamp", &parts.options, load).await.unwrap()
                })
            })
        })
        .collect();
    let hits: Vec<Hit<u64>> = answers.iter().map(|answer| answer.recv_timeout(SOON).unwrap()).collect();
    assert!(hits.iter().all(|hit| hit.value.as_deref() == Some(&1)));
    assert_eq!(database.loads(), 1);
    assert_eq!(hits.iter().filter(|hit| !hit.collapsed).count(), 4, "one flight per worker");
}

#[test]
fn a_failure_answers_everybody_at_once_and_for_a_moment_after() {
    let workers = setup().workers(2);
    let calls = Arc::new(AtomicU64::new(0));
    let fail = |worker: usize| {
        let calls = Arc::clone(&calls);
        workers[worker].start(async move |parts| {
            let options = Options { error_hold: Duration::from_secs(2), ..parts.options };
            let load = async move || {
                calls.fetch_add(1, Ordering::SeqCst);
                Err::<Option<u64>, _>("the database is on fire")
            };
            parts.prices.get_or_load("lamp", &options, load).await.unwrap_err().to_string()
        })
    };
    let start = Instant::now();
    let together: Vec<_> = (0..50).map(|_| fail(0)).collect();
    for answer in together {
        assert_eq!(answer.recv_timeout(SOON).unwrap(), "the loader failed: the database is on fire");
    }
    assert_eq!(fail(0).recv_timeout(SOON).unwrap(), "the loader failed: the database is on fire");
    assert!(fail(1).recv_timeout(SOON).unwrap().contains("in another worker"));
    if start.elapsed() < Duration::from_millis(1800) {
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
    let database = Database::with(&["lamp"]);
    eventually(SOON, || workers[0].try_read(&database, "lamp").is_ok());
}

#[test]
fn a_cold_cache_is_no_storm_on_the_database() {
    let mut setup = setup();
    (setup.config.most_loads, setup.config.most_waiting_loads) = (4, 50);
    let workers = setup.workers(2);
    let (running, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let read = |worker: &Worker, number: u64| {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        worker.start(async move |parts| {
            let load = async move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, LoadError>(Some(number))
            };
            parts.prices.get_or_load(&format!("row-{number}"), &parts.options, load).await.map(|hit| hit.value)
        })
    };
    let waves: Vec<_> =
        (0..40).flat_map(|number| [read(&workers[0], number), read(&workers[1], 1_000 + number)]).collect();
    assert!(waves.into_iter().all(|answer| answer.recv_timeout(SOON).unwrap().is_ok()));
    let most_at_once = most.load(Ordering::SeqCst);
    assert!((5..=8).contains(&most_at_once), "{most_at_once} loads at once by two workers");
    // More than may wait are refused at once, and not by the other worker, which has room.
    let answers: Vec<_> = (2_000..2_200).map(|number| read(&workers[0], number)).collect();
    let refused = answers.into_iter().filter(|answer| {
        let result = answer.recv_timeout(SOON).unwrap();
        matches!(result, Err(LoadError::Overloaded))
    });
    let refused = refused.count();
    assert!((50..=146).contains(&refused), "{refused} of 200 refused");
    assert!((2_000..2_200).all(|number| read(&workers[1], number).recv_timeout(SOON).unwrap().is_ok()));
}

#[test]
fn a_panicking_loader_is_an_error_and_the_next_read_loads() {
    let workers = setup().workers(1);
    let error = workers[0].run(async |parts| {
        let load = async || -> Result<Option<u64>, LoadError> { panic!("a test panics on purpose") };
        parts.prices.get_or_load("lamp", &parts.options, load).await.unwrap_err()
    });
    assert!(matches!(error, LoadError::Panicked), "{error}");
    let database = Database::with(&["lamp"]);
    eventually(SOON, || workers[0].try_read(&database, "lamp").is_ok());
}

#[test]
fn a_loader_that_takes_too_long_is_cut_off() {
    let setup = Setup { load_timeout: Duration::from_millis(50), ..setup() };
    let workers = setup.workers(1);
    let error = workers[0].run(async |parts| {
        let load = async || std::future::pending::<Result<Option<u64>, LoadError>>().await;
        parts.prices.get_or_load("lamp", &parts.options, load).await.unwrap_err()
    });
    assert!(matches!(error, LoadError::TimedOut), "{error}");
}

#[test]
fn a_caller_that_goes_away_does_not_cancel_the_load() {
    let workers = setup().workers(1);
    let database = Database::with(&["lamp"]);
    let loaded = Arc::clone(&database);
    workers[0].run(async move |parts| {
        let load = async move || {
            tokio::task::yield_now().await;
            Ok::<_, LoadError>(loaded.load("lamp"))
        };
        let mut caller = pin!(parts.prices.get_or_load("lamp", &parts.options, load));
        let is_waiting = poll_fn(|context| Poll::Ready(caller.as_mut().poll(context).is_pending())).await;
        assert!(is_waiting, "it goes away after its first poll");
    });
    eventually(SOON, || database.loads() == 1);
    let hit = workers[0].read(&database, "lamp");
    assert_eq!((hit.value.as_deref(), database.loads()), (Some(&1), 1));
}

#[test]
fn an_absent_row_is_remembered_until_it_is_created() {
    let workers = setup().workers(3);
    let database = Arc::new(Database::default());
    for worker in &workers {
        assert_eq!(worker.read(&database, "lamp").value, None);
    }
    assert_eq!(workers[1].read(&database, "lamp").source, Source::L1);
    assert_eq!(database.loads(), 1);
    let ttl = workers[1].read(&database, "lamp").ttl;
    assert!(ttl <= Duration::from_millis(5_500), "{ttl:?}");
    workers[0].write(&database, "lamp");
    assert_eq!(workers[0].read(&database, "lamp").value.as_deref(), Some(&1));
    for worker in &workers {
        eventually(SOON, || worker.read(&database, "lamp").value.as_deref() == Some(&1));
    }
}

#[test]
fn an_entry_of_another_schema_is_a_miss_for_each_side() {
    let old = setup();
    let new = Setup { schema: 2, ..old.clone() };
    let (old, new) = (old.workers(1), new.workers(1));
    let database = Database::with(&["lamp"]);
    let sources = [&old, &new, &old].map(|workers| (workers[0].read(&database, "lamp").source, database.loads()));
    assert_eq!(sources, [(Source::Loader, 1), (Source::Loader, 2), (Source::L1, 2)]);
    old[0].write(&database, "lamp");
    for workers in [&new, &old] {
        eventually(SOON, || workers[0].read(&database, "lamp").value.as_deref() == Some(&2));
    }
}

#[test]
fn a_damaged_entry_is_a_miss_and_is_replaced() {
    let setup = setup();
    let workers = setup.workers(2);
    let database = Database::with(&["lamp"]);
    workers[0].read(&database, "lamp");
    let redis = Redis::shared();
    let key = redis.command(&["KEYS", &format!("{}:c:*:e:lamp", setup.config.prefix)]);
    redis.command(&["SETRANGE", &key, "47", "damaged"]);
    assert_eq!(workers[1].read(&database, "lamp").source, Source::Loader);
    let third = setup.workers(1);
    assert_eq!(third[0].read(&database, "lamp").source, Source::L2);
    assert_eq!(database.loads(), 2);
}

#[test]
fn a_value_that_is_too_large_is_answered_and_not_stored() {
    let workers = setup().workers(1);
    let (first, second) = workers[0].run(async |parts| {
        let texts = parts.caches.namespace::<String>(cache::Namespace { name: "text", schema: 1 });
        let load = async || Ok::<_, LoadError>(Some("x".repeat(2 << 20)));
        let first = texts.get_or_load("long", &parts.options, load).await.unwrap();
        (first, texts.get_or_load("long", &parts.options, load).await.unwrap())
    });
    for hit in [first, second] {
        assert_eq!(hit.source, Source::Loader);
        assert!(!hit.shared);
        assert_eq!(hit.value.unwrap().len(), 2 << 20);
    }
}

#[test]
fn the_lease_of_a_dead_worker_is_taken_over_when_it_ends() {
    let setup = Setup { load_timeout: Duration::from_millis(500), ..setup() };
    let mut workers = setup.workers(2);
    let database = Database::with(&["lamp"]);
    let (started, has_started) = std::sync::mpsc::channel();
    workers[0].start(async move |parts| {
        let load = async move || {
            started.send(()).unwrap();
            std::future::pending::<Result<Option<u64>, LoadError>>().await
        };
        let _ = parts.prices.get_or_load("lamp", &parts.options, load).await;
    });
    has_started.recv_timeout(SOON).unwrap();
    let start = Instant::now();
    drop(workers.remove(0));
    assert_eq!(workers[0].read(&database, "lamp").value.as_deref(), Some(&1));
    let waited = start.elapsed();
    assert!(waited <= Duration::from_secs(3), "{waited:?}");
    assert_eq!(database.loads(), 1);
}
