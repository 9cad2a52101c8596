//! One invalidation of a tag outdates everything that carries it, in every worker, in Redis and in flight (traps T7, T1).

use std::{sync::Arc, time::Duration};

use cache::{CacheKey, Hit, Invalidation, LoadError, Loaded, Source};
use test_support::{Redis, eventually, unique_prefix};

use crate::{
    harness::{Database, Parts, SOON, Setup, Worker},
    held::Held,
};

/// A read of a row that carries `tag`.
async fn read_with(parts: &Parts, database: Arc<Database>, key: &str, tag: &str) -> Result<Hit<u64>, LoadError> {
    let (row, tags) = (key.to_owned(), vec![tag.to_owned()]);
    let load = async move || Ok::<_, LoadError>(Loaded { tags, ..database.load(&row).into() });
    parts.prices.get_or_load(key, &parts.options, load).await
}

fn read(worker: &Worker, database: &Arc<Database>, key: &str, tag: &str) -> Hit<u64> {
    let (database, key, tag) = (Arc::clone(database), key.to_owned(), tag.to_owned());
    worker.run(async move |parts| read_with(&parts, database, &key, &tag).await).unwrap()
}

fn invalidate(worker: &Worker, tag: &str) -> Invalidation {
    let tag = tag.to_owned();
    worker.run(async move |parts| parts.caches.invalidate(&[parts.caches.tag(&tag)]).await)
}

fn value(hit: &Hit<u64>) -> Option<u64> {
    hit.value.as_deref().copied()
}

#[test]
fn a_tag_outdates_all_that_carry_it_everywhere_and_nothing_else() {
    let setup = Setup::new(Redis::shared().url(), &unique_prefix());
    let workers = setup.workers(2);
    let rows = [("lamp", "category:light"), ("bulb", "category:light"), ("tea", "category:food")];
    let database = Database::with(&rows.map(|(key, _)| key));
    for worker in &workers {
        for (key, tag) in rows {
            read(worker, &database, key, tag);
        }
    }
    assert_eq!(database.loads(), 3);
    for (key, _) in rows {
        database.commit(key);
    }
    assert_eq!(invalidate(&workers[0], "category:light"), Invalidation::Published);
    for (key, tag) in &rows[..2] {
        assert_eq!(value(&read(&workers[0], &database, key, tag)), Some(2), "{key}: the writer sees it at once");
        eventually(SOON, || value(&read(&workers[1], &database, key, tag)) == Some(2));
    }
    assert_eq!(database.loads(), 5, "what one worker loaded again serves the other");
    let tea = read(&workers[1], &database, "tea", "category:food");
    assert_eq!((value(&tea), tea.source), (Some(1), Source::L1));
}

#[test]
fn a_worker_that_comes_later_does_not_believe_what_a_tag_has_outdated() {
    let setup = Setup::new(Redis::shared().url(), &unique_prefix());
    let first = setup.workers(1).remove(0);
    let database = Database::with(&["lamp"]);
    read(&first, &database, "lamp", "light");
    database.commit("lamp");
    invalidate(&first, "light");
    // The entry lies in Redis as before, and this worker has heard of no invalidation.
    let second = setup.workers(1).remove(0);
    assert_eq!(value(&read(&second, &database, "lamp", "light")), Some(2));
    let hit = read(&first, &database, "lamp", "light");
    assert_eq!((value(&hit), hit.source), (Some(2), Source::L2));
    // And what was loaded after the last invalidation, it believes.
    let third = setup.workers(1).remove(0);
    let hit = read(&third, &database, "lamp", "light");
    assert_eq!((value(&hit), hit.source), (Some(2), Source::L2));
}

#[test]
fn a_tag_invalidated_during_a_load_outdates_its_value_for_all_who_come_later() {
    let setup = Setup::new(Redis::shared().url(), &unique_prefix());
    let workers = setup.workers(3);
    for round in 0..100 {
        let (key, tag) = (format!("lamp-{round}"), format!("light-{round}"));
        let database = Database::with(&[&key]);
        let (loader, writer) = (fastrand::usize(0..3), fastrand::usize(0..3));
        let held = Held::start_with(&workers[loader], &database, &key, &[&tag], |_| {});
        held.looked();
        database.commit(&key);
        invalidate(&workers[writer], &tag);
        // This one waits for the load under way, in the writer's process or through its lease, and must not get its value.
        let (theirs, row, its_tag) = (Arc::clone(&database), key.clone(), tag.clone());
        let late = workers[writer].start(async move |parts| read_with(&parts, theirs, &row, &its_tag).await.unwrap());
        let old = held.finish();
        assert_eq!(value(&old), Some(1), "who came before the change may see the old value");
        assert_eq!(value(&late.recv_timeout(SOON).unwrap()), Some(2), "round {round}");
        for worker in &workers {
            eventually(SOON, || value(&read(worker, &database, &key, &tag)) == Some(2));
        }
    }
}

#[test]
fn a_tag_invalidated_while_redis_is_away_takes_effect_here_at_once_and_elsewhere_when_it_is_back() {
    let redis = Redis::start();
    let mut setup = Setup::new(redis.url(), &unique_prefix());
    setup.command_timeout = Duration::from_millis(300);
    setup.config.disconnected_ttl = Duration::from_secs(60);
    let workers = setup.workers(2);
    let database = Database::with(&["lamp"]);
    for worker in &workers {
        read(worker, &database, "lamp", "light");
    }
    redis.stop();
    database.commit("lamp");
    assert_eq!(invalidate(&workers[0], "light"), Invalidation::Queued);
    assert_eq!(value(&read(&workers[0], &database, "lamp", "light")), Some(2));
    assert_eq!(value(&read(&workers[1], &database, "lamp", "light")), Some(1));
    redis.cont();
    for worker in &workers {
        eventually(SOON, || value(&read(worker, &database, "lamp", "light")) == Some(2));
    }
}

#[test]
fn redis_keeps_nothing_for_a_tag_and_an_invalidation_costs_the_same_for_any_number_of_entries() {
    let redis = Redis::start();
    let worker = Setup::new(redis.url(), "tags").workers(1).remove(0);
    let database = Arc::new(Database::default());
    // What an invalidation does and nothing else: the watchdog is at work all the time.
    let commands = || ["unlink", "xadd", "publish"].map(|command| redis.calls(command)).iter().sum::<u64>();
    let cost = || {
        let before = commands();
        invalidate(&worker, "everything");
        commands() - before
    };
    let keys_of_tags = || redis.command(&["KEYS", "tags:c:{tags:*"]).lines().count();
    invalidate(&worker, "everything");
    let (few, keys) = (cost(), keys_of_tags());
    for number in 0..2_000 {
        read(&worker, &database, &format!("row-{number}"), "everything");
        read(&worker, &database, &format!("row-{number}"), &format!("own-{number}"));
    }
    assert_eq!((cost(), keys_of_tags()), (few, keys));
}

#[test]
fn a_value_with_tags_that_cannot_be_stored_is_answered_and_not_kept() {
    let worker = Setup::new(Redis::shared().url(), &unique_prefix()).workers(1).remove(0);
    let database = Database::with(&["lamp"]);
    for tag in [String::new(), "x".repeat(201)] {
        for loads in 1..=2 {
            let before = database.loads();
            let hit = read(&worker, &database, "lamp", &tag);
            assert_eq!((value(&hit), hit.source, database.loads()), (Some(1), Source::Loader, before + 1), "{loads}");
        }
    }
}

#[test]
fn a_loader_may_say_how_long_its_value_lives() {
    let worker = Setup::new(Redis::shared().url(), &unique_prefix()).workers(1).remove(0);
    let database = Database::with(&["lamp"]);
    let read = || {
        let database = Arc::clone(&database);
        worker.run(async move |parts| {
            let ttl = Some(Duration::from_millis(200));
            let load = async move || Ok::<_, LoadError>(Loaded { ttl, ..database.load("lamp").into() });
            parts.prices.get_or_load("lamp", &parts.options, load).await.unwrap()
        })
    };
    let first = read();
    assert!(first.ttl <= Duration::from_millis(220), "{:?}", first.ttl);
    eventually(SOON, || read().source == Source::Loader);
}

#[test]
fn keys_and_tags_of_several_namespaces_go_in_one_call() {
    let worker = Setup::new(Redis::shared().url(), &unique_prefix()).workers(1).remove(0);
    let database = Database::with(&["lamp", "bulb"]);
    read(&worker, &database, "lamp", "light");
    read(&worker, &database, "bulb", "other");
    let outcome = worker.run(async move |parts| {
        let both: [CacheKey; 2] = [parts.prices.key("bulb"), parts.caches.tag("light")];
        parts.caches.invalidate(&both).await
    });
    assert_eq!(outcome, Invalidation::Published);
    for (key, tag) in [("lamp", "light"), ("bulb", "other")] {
        assert_eq!(read(&worker, &database, key, tag).source, Source::Loader);
    }
}

#[test]
fn what_a_worker_loads_first_of_all_is_believed_by_the_others() {
    let setup = Setup::new(Redis::shared().url(), &unique_prefix());
    let other = setup.workers(1).remove(0);
    let mut believed = 0;
    for round in 0..20 {
        let key = format!("lamp-{round}");
        let database = Database::with(&[&key]);
        // Nothing is waited for: it may not have looked at Redis yet.
        let young = setup.worker();
        if !read(&young, &database, &key, "light").shared {
            // The machine is so busy that it had no connection yet, and so it loaded alone.
            continue;
        }
        assert_eq!(read(&other, &database, &key, "light").source, Source::L2, "round {round}");
        believed += 1;
    }
    assert!(believed > 0, "it never had a connection");
}
