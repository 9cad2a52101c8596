//! What people do to the cache.

use std::{sync::Arc, time::Duration};

use cache::{Inspection, LoadError, Loaded, Source};
use test_support::{Redis, eventually, unique_prefix};

use crate::harness::{Database, SOON, Setup};

#[test]
fn an_entry_says_how_old_it_is_and_what_it_carries() {
    let setup = Setup::new(Redis::shared().url(), &unique_prefix());
    let worker = setup.workers(1).remove(0);
    assert_eq!(worker.inspect("lamp"), None);
    worker.run(async move |parts| {
        let load = async || {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, LoadError>(Loaded { tags: vec!["light".to_owned()], ..Some(7).into() })
        };
        parts.prices.get_or_load("lamp", &parts.options, load).await.map(drop).unwrap();
    });
    let entry = worker.inspect("lamp").unwrap();
    let readable = entry.readable.unwrap();
    assert_eq!((readable.absent, readable.tags), (false, vec!["light".to_owned()]));
    assert!(entry.bytes > 60 && entry.bytes < 120, "{}", entry.bytes);
    let ttl = Duration::from_secs(60);
    assert!((ttl.mul_f64(0.8)..ttl.mul_f64(1.2)).contains(&readable.fresh_for), "{:?}", readable.fresh_for);
    assert!(readable.expires_in > readable.fresh_for + Duration::from_secs(299));
    assert!(readable.load_time >= Duration::from_millis(20) && readable.load_time < Duration::from_secs(5));
    let other = Setup { schema: 2, ..setup }.workers(1).remove(0);
    assert_eq!(other.inspect("lamp"), Some(Inspection { readable: None, ..entry }));
}

#[test]
fn a_namespace_that_is_cleared_is_empty_for_everybody() {
    let workers = Setup::new(Redis::shared().url(), &unique_prefix()).workers(2);
    let keys: Vec<String> = (0..50).map(|number| format!("lamp-{number}")).collect();
    let database = Database::with(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    for worker in &workers {
        keys.iter().for_each(|key| drop(worker.read(&database, key)));
    }
    keys.iter().for_each(|key| drop(database.commit(key).to_string()));
    let clear =
        |namespace: &'static str| workers[0].run(async move |parts| parts.caches.clear(namespace).await).unwrap();
    assert!(!clear("unheard-of"));
    assert!(clear("price"));
    for worker in &workers {
        eventually(SOON, || keys.iter().all(|key| worker.read(&database, key).value.as_deref() == Some(&2)));
    }
    assert_eq!(workers[0].inspect("lamp-0").map(|entry| entry.readable.is_some()), Some(true));
    let again = workers[1].read(&Arc::clone(&database), "lamp-0");
    assert_eq!(again.source, Source::L1);
}
