//! Callers that are cancelled at any moment, as clients that hang up make them.

use std::{collections::HashMap, time::Duration};

use test_support::{FaultProxy, Mode, Postgres, eventually_async};
use tokio::{task::JoinSet, time::timeout};
use uuid::Uuid;

use super::{Database, first_products, number, open};
use crate::{Error, ProductChanges, Store, UpdateOutcome};

const UPDATES: usize = 400;

/// Updates of 20 products, every other one cancelled after a random time up to `patience`; the
/// highest version acknowledged for each product.
async fn storm(store: &Store, patience: Duration) -> HashMap<Uuid, i64> {
    let ids: Vec<Uuid> = first_products(store, 20).await.into_iter().map(|product| product.id).collect();
    let mut tasks = JoinSet::new();
    let mut acknowledged = HashMap::new();
    let mut cancelled = 0;
    let mut note = |outcome: Option<(Uuid, i64)>| match outcome {
        Some((id, version)) => {
            let highest = acknowledged.entry(id).or_insert(version);
            *highest = version.max(*highest);
        }
        None => cancelled += 1,
    };
    for index in 0..UPDATES {
        if tasks.len() >= 16 {
            note(tasks.join_next().await.unwrap().unwrap());
        }
        let (products, id) = (store.products(), ids[index / 2 % ids.len()]);
        let limit = if index % 2 == 0 { patience.mul_f64(fastrand::f64()) } else { Duration::MAX };
        tasks.spawn(async move {
            let changes = ProductChanges { stock: Some(index as i64), ..ProductChanges::default() };
            match timeout(limit, products.update(id, &changes, None)).await {
                Ok(Ok(UpdateOutcome::Updated(product))) => Some((id, product.version)),
                // Waiting for the product's row, or for a connection.
                Err(_) | Ok(Err(Error::Busy(_) | Error::Unavailable(_))) => None,
                Ok(other) => panic!("{other:?}"),
            }
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        note(outcome.unwrap());
    }
    assert!(cancelled >= 20, "only {cancelled} of {UPDATES} were cancelled");
    assert!(acknowledged.len() >= 8, "only {} products were changed", acknowledged.len());
    acknowledged
}

/// Nothing acknowledged is gone, no write is half done, and every connection of the pool works. Writes
/// that were cancelled while they were committed may still arrive, as a whole.
async fn check(store: &Store, other: &Store, mut acknowledged: HashMap<Uuid, i64>) {
    let mut tasks = JoinSet::new();
    for id in acknowledged.keys().copied().take(8) {
        let products = store.products();
        tasks.spawn(async move { products.update(id, &ProductChanges::default(), None).await.unwrap() });
    }
    for outcome in tasks.join_all().await {
        let UpdateOutcome::Updated(product) = outcome else { panic!("{outcome:?}") };
        assert!(acknowledged.insert(product.id, product.version) < Some(product.version));
    }
    for (id, version) in &acknowledged {
        let product = other.products().find(&(*id).into()).await.unwrap().unwrap();
        assert!(product.version >= *version, "{id} has {} but {version} was acknowledged", product.version);
    }
    // One statement sees one moment.
    let apart = "SELECT CAST(version - 2 - (SELECT sum(version - 1) FROM product) AS BIGINT) FROM catalogue";
    assert_eq!(number(other, apart).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_of_cancelled_updates_postgres_has_no_forgotten_transaction() {
    let postgres = Postgres::shared();
    let database = Database::postgres();
    let direct = database.seeded().await;
    let proxy = FaultProxy::start(postgres.address());
    let store = open(&database.url.replace(&postgres.address().to_string(), &proxy.address().to_string()), 4).await;
    store.ping().await.unwrap();
    proxy.set(Mode::Delay(Duration::from_millis(5)));
    let acknowledged = storm(&store, Duration::from_millis(200)).await;
    // Last, only calls whose `BEGIN` is under way when they are cancelled: no later transaction on
    // these connections ends a forgotten one by chance.
    proxy.set(Mode::Delay(Duration::from_millis(40)));
    let id = *acknowledged.keys().next().unwrap();
    for _ in 0..5 {
        let update = || async {
            timeout(Duration::from_millis(30), store.products().update(id, &ProductChanges::default(), None)).await
        };
        let calls = tokio::join!(update(), update(), update(), update());
        assert!([calls.0, calls.1, calls.2, calls.3].iter().all(Result::is_err));
    }
    proxy.set(Mode::Pass);
    let name = database.url.rsplit_once('/').unwrap().1;
    let open_transactions =
        format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND state LIKE 'idle in transaction%'");
    // Well before the server's own timeout for such transactions, 10 s.
    eventually_async(Duration::from_secs(3), async || number(&direct, &open_transactions).await == 0).await;
    check(&store, &direct, acknowledged).await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_of_cancelled_updates_sqlite_has_no_forgotten_transaction() {
    let database = Database::sqlite();
    let store = database.seeded().await;
    let acknowledged = storm(&store, Duration::from_millis(20)).await;
    check(&store, &database.open().await, acknowledged).await;
}
