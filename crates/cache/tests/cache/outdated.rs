//! What was invalidated never stands in, wherever it was when that happened.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use cache::{Hit, LoadError, Options, Source};
use test_support::{Redis, eventually, unique_prefix};

use crate::{
    freshness::{TTL, until_old},
    harness::{Database, Parts, SOON, Setup, Worker},
    proxy::SubscriberProxy,
};

/// A read whose loader is held after its look into the database.
struct Held {
    has_looked: mpsc::Receiver<()>,
    go_on: tokio::sync::oneshot::Sender<()>,
    answer: mpsc::Receiver<Result<Hit<u64>, LoadError>>,
}

impl Held {
    fn start(worker: &Worker, database: &Arc<Database>, key: &str) -> Self {
        let (go_on, goes_on) = tokio::sync::oneshot::channel();
        let (looked, has_looked) = mpsc::channel();
        let (database, key) = (Arc::clone(database), key.to_owned());
        let answer = worker.start(async move |parts| {
            let row = key.clone();
            let load = async move || {
                let value = database.load(&row);
                looked.send(()).unwrap();
                let _ = goes_on.await;
                Ok::<_, LoadError>(value)
            };
            parts.prices.get_or_load(&key, &options(&parts), load).await
        });
        Self { has_looked, go_on, answer }
    }

    fn looked(&self) {
        self.has_looked.recv_timeout(SOON).unwrap();
    }
}

fn options(parts: &Parts) -> Options {
    Options { ttl: TTL, ..parts.options }
}

fn read(worker: &Worker, database: &Arc<Database>, key: &str) -> mpsc::Receiver<Result<Hit<u64>, LoadError>> {
    let (database, key) = (Arc::clone(database), key.to_owned());
    worker.start(async move |parts| {
        let row = key.clone();
        let load = async move || Ok::<_, LoadError>(database.load(&row));
        parts.prices.get_or_load(&key, &options(&parts), load).await
    })
}

fn value(hit: Result<Hit<u64>, LoadError>) -> Option<u64> {
    hit.unwrap().value.as_deref().copied()
}

#[test]
fn an_old_value_offered_to_a_load_under_way_does_not_outlive_its_invalidation() {
    let redis = Redis::start();
    let proxy = SubscriberProxy::start(redis.address());
    let prefix = unique_prefix();
    let reader = Setup::new(proxy.url(), &prefix).workers(1).remove(0);
    let others = Setup::new(redis.url(), &prefix).workers(2);
    for round in 0..4 {
        let key = format!("lamp-{round}");
        let database = Database::with(&[&key]);
        let read_at = Instant::now();
        assert_eq!(value(read(&others[0], &database, &key).recv_timeout(SOON).unwrap()), Some(1));
        until_old(read_at);
        // Another worker holds the lease, so the reader has found the old value and waits.
        let holder = Held::start(&others[0], &database, &key);
        holder.looked();
        let waiting = Held::start(&reader, &database, &key);
        assert_eq!(value(waiting.answer.recv_timeout(SOON).unwrap()), Some(1), "it stands in");
        // The reader's load begins after the invalidation that the reader has not heard of.
        proxy.black_hole_subscriptions();
        let caught_up = || reader.metric("bellwether_cache_catch_ups_total");
        let before = caught_up();
        others[1].write(&database, &key);
        waiting.looked();
        eventually(SOON, || caught_up() > before);
        let late = read(&reader, &database, &key);
        // Longer than anybody waits who has something old to make do with.
        let early = late.recv_timeout(Duration::from_millis(200));
        let _ = waiting.go_on.send(());
        let answer = early.or_else(|_| late.recv_timeout(SOON));
        assert_eq!(value(answer.unwrap()), Some(2), "round {round}");
        proxy.heal();
        let _ = holder.go_on.send(());
        eventually(SOON, || {
            read(&reader, &database, &key).recv_timeout(SOON).unwrap().is_ok_and(|hit| hit.source == Source::L1)
        });
    }
}
