//! What was invalidated never stands in, wherever it was when that happened.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use cache::{Hit, LoadError, Options, Source};
use test_support::{Redis, eventually, unique_prefix};

use crate::{
    freshness::{TTL, until_old},
    harness::{Database, SOON, Setup, Worker},
    held::Held,
    proxy::SubscriberProxy,
};

fn short_lived(options: &mut Options) {
    options.ttl = TTL;
}

fn read(worker: &Worker, database: &Arc<Database>, key: &str) -> mpsc::Receiver<Result<Hit<u64>, LoadError>> {
    let (database, key) = (Arc::clone(database), key.to_owned());
    worker.start(async move |parts| {
        let row = key.clone();
        let load = async move || Ok::<_, LoadError>(database.load(&row));
        parts.prices.get_or_load(&key, &Options { ttl: TTL, ..parts.options }, load).await
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
        assert_eq!(value(read(&others[0], &database, &key).recv_timeout(SOON).unwrap()), Some(1));
        until_old(others.iter().chain([&reader]), &key);
        // Another worker holds the lease, so the reader has found the old value and waits.
        let holder = Held::start_with(&others[0], &database, &key, &[], short_lived);
        holder.looked();
        let waiting = Held::start_with(&reader, &database, &key, &[], short_lived);
        assert_eq!(value(Ok(waiting.answer())), Some(1), "it stands in");
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
        waiting.let_go();
        let answer = early.or_else(|_| late.recv_timeout(SOON));
        assert_eq!(value(answer.unwrap()), Some(2), "round {round}");
        proxy.heal();
        holder.let_go();
        eventually(SOON, || {
            read(&reader, &database, &key).recv_timeout(SOON).unwrap().is_ok_and(|hit| hit.source == Source::L1)
        });
    }
}
