//! A change that was announced is invalidated whatever becomes of its writer (trap T13).

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use cache::{CacheKey, Change, Hit, Invalidation, LoadError, Loaded, Namespace, Source};
use test_support::{Redis, eventually, unique_prefix};

use crate::harness::{Database, Parts, SOON, Setup, Worker};

const CHANGE_TIMEOUT: Duration = Duration::from_millis(300);
const TAG: &str = "light";

fn setup(url: String) -> Setup {
    let mut setup = Setup::new(url, &unique_prefix());
    setup.config.change_timeout = CHANGE_TIMEOUT;
    setup
}

async fn read_in(parts: &Parts, database: Arc<Database>, key: &str) -> Result<Hit<u64>, LoadError> {
    let row = key.to_owned();
    let load = async move || {
        let tags = vec![format!("{TAG}-{row}")];
        Ok::<_, LoadError>(Loaded { tags, ..database.load(&row).into() })
    };
    parts.prices.get_or_load(key, &parts.options, load).await
}

fn read(worker: &Worker, database: &Arc<Database>, key: &str) -> Hit<u64> {
    let (database, key) = (Arc::clone(database), key.to_owned());
    worker.run(async move |parts| read_in(&parts, database, &key).await).unwrap()
}

/// By its key, or by its tag.
fn named(parts: &Parts, key: &str, by_tag: bool) -> CacheKey {
    if by_tag { parts.caches.tag(&format!("{TAG}-{key}")) } else { parts.prices.key(key) }
}

/// Announces a change and commits it; what comes after that is up to `and_then`.
fn begin<T, F, Fut>(
    worker: &Worker,
    database: &Arc<Database>,
    key: &str,
    by_tag: bool,
    and_then: F,
) -> mpsc::Receiver<T>
where
    T: Send + 'static,
    F: FnOnce(Change) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let (database, key) = (Arc::clone(database), key.to_owned());
    let (committed, is_committed) = mpsc::channel();
    let result = worker.start(async move |parts: Parts| {
        let change = parts.caches.announce(&[named(&parts, &key, by_tag)]).await;
        database.commit(&key);
        committed.send(()).unwrap();
        and_then(change).await
    });
    is_committed.recv_timeout(SOON).unwrap();
    result
}

fn overdue(worker: &Worker) -> f64 {
    worker.metric("bellwether_cache_overdue_changes_total")
}

#[test]
fn writers_killed_between_commit_and_invalidation_leave_nothing_old_behind() {
    let setup = setup(Redis::shared().url());
    let workers = setup.workers(2);
    let keys: Vec<String> = (0..20).map(|number| format!("lamp-{number}")).collect();
    let database = Database::with(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    for worker in &workers {
        keys.iter().for_each(|key| drop(read(worker, &database, key)));
    }
    for (number, key) in keys.iter().enumerate() {
        let writer = setup.worker();
        drop(begin::<(), _, _>(&writer, &database, key, number % 2 == 0, async |change| {
            // It never gets further, and not even its memory is tidied up.
            std::mem::forget(change);
            std::future::pending().await
        }));
        drop(writer);
    }
    let killed = Instant::now();
    for key in &keys {
        for worker in &workers {
            eventually(SOON, || read(worker, &database, key).value.as_deref() == Some(&2));
        }
    }
    // A writer may have taken over the change of the one before it and been killed, too: that is five seconds more.
    assert!(killed.elapsed() < Duration::from_secs(9), "{:?}", killed.elapsed());
    let made_up_for = overdue(&workers[0]) + overdue(&workers[1]);
    assert!((1.0..=20.0).contains(&made_up_for), "{made_up_for} of 20");
}

#[test]
fn a_change_that_is_said_to_be_committed_is_seen_at_once_and_made_up_for_by_nobody() {
    let setup = setup(Redis::shared().url());
    let workers = setup.workers(2);
    let database = Database::with(&["lamp"]);
    read(&workers[0], &database, "lamp");
    let outcome = begin(&workers[0], &database, "lamp", true, async |change| change.committed().await);
    assert_eq!(outcome.recv_timeout(SOON).unwrap(), Invalidation::Published);
    assert_eq!(read(&workers[0], &database, "lamp").value.as_deref(), Some(&2));
    let announced = format!("{}:c:{{changes}}:announced", setup.config.prefix);
    eventually(SOON, || Redis::shared().command(&["ZCARD", &announced]) == "0");
    assert_eq!(overdue(&workers[0]) + overdue(&workers[1]), 0.0);
}

#[test]
fn a_change_that_was_withdrawn_invalidates_nothing_and_one_that_is_dropped_does() {
    let worker = setup(Redis::shared().url()).workers(1).remove(0);
    let database = Database::with(&["lamp"]);
    read(&worker, &database, "lamp");
    begin(&worker, &database, "lamp", false, async |change| change.withdrawn().await).recv_timeout(SOON).unwrap();
    assert_eq!(read(&worker, &database, "lamp").source, Source::L1);
    begin(&worker, &database, "lamp", false, async |change| drop(change)).recv_timeout(SOON).unwrap();
    eventually(SOON, || read(&worker, &database, "lamp").value.as_deref() == Some(&3));
}

#[test]
fn a_change_in_doubt_that_is_committed_later_is_made_up_for() {
    let worker = setup(Redis::shared().url()).workers(1).remove(0);
    let database = Database::with(&["lamp"]);
    read(&worker, &database, "lamp");
    for round in 2..4 {
        worker.run(async move |parts| {
            let change = parts.caches.announce(&[named(&parts, "lamp", true)]).await;
            // A future that is cut off says as much.
            if round == 2 {
                change.in_doubt().await;
            }
        });
        eventually(SOON, || read(&worker, &database, "lamp").source == Source::L1);
        database.commit("lamp");
        eventually(SOON, || read(&worker, &database, "lamp").value.as_deref() == Some(&round));
    }
}

#[test]
fn what_another_release_has_announced_is_invalidated_without_knowing_its_namespace() {
    let setup = setup(Redis::shared().url());
    let workers = setup.workers(1);
    let mut theirs = setup.clone();
    // It does not take over its own change.
    theirs.config.change_timeout = Duration::from_secs(2);
    let writer = theirs.worker();
    writer.run(async |parts| {
        let stock = parts.caches.namespace::<u64>(Namespace { name: "stock", schema: 1 });
        let hit = stock.get_or_load("lamp", &parts.options, async || Ok::<_, LoadError>(Some(7))).await.unwrap();
        assert!(hit.shared);
        std::mem::forget(parts.caches.announce(&[stock.key("lamp")]).await);
    });
    drop(writer);
    let entries = format!("{}:c:{{stock:*}}:e:*", setup.config.prefix);
    let lies_in_redis = || !Redis::shared().command(&["KEYS", &entries]).trim().is_empty();
    assert!(lies_in_redis());
    eventually(SOON, || !lies_in_redis());
    assert_eq!(overdue(&workers[0]), 1.0);
}

#[test]
fn a_writer_that_dies_with_its_invalidation_queued_has_announced_it() {
    let redis = Redis::start();
    let mut setup = setup(redis.url());
    setup.command_timeout = Duration::from_millis(300);
    setup.config.disconnected_ttl = Duration::from_secs(60);
    let mut workers = setup.workers(2);
    let database = Database::with(&["lamp"]);
    workers.iter().for_each(|worker| drop(read(worker, &database, "lamp")));
    let (go_on, goes_on) = tokio::sync::oneshot::channel();
    let outcome = begin(&workers[1], &database, "lamp", false, async |change| {
        let _ = goes_on.await;
        change.committed().await
    });
    redis.stop();
    go_on.send(()).unwrap();
    assert_eq!(outcome.recv_timeout(SOON).unwrap(), Invalidation::Queued);
    drop(workers.remove(1));
    assert_eq!(read(&workers[0], &database, "lamp").value.as_deref(), Some(&1));
    redis.cont();
    eventually(SOON, || read(&workers[0], &database, "lamp").value.as_deref() == Some(&2));
}
