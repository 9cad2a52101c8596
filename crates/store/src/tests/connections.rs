//! Opening, losing and finding connections again.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use sea_orm::ConnectionTrait;
use telemetry::Registry;
use test_support::{FaultProxy, Mode, Postgres, eventually_async};

use super::{Database, first_products, number, open};
use crate::{Config, Error, Store};

#[tokio::test]
async fn urls_that_cannot_work_are_refused_without_repeating_them() {
    let long = [
        "mysql://root:hunter2@db/x",
        "hunter2",
        "sqlite::memory:",
        "sqlite://x?mode=memory",
        "postgres://a:hunter2@h:port/x",
    ];
    for url in long {
        let config = Config { url: url.into(), max_connections: 1 };
        let error = Store::connect(&config, &Registry::new()).await.err().unwrap();
        assert!(matches!(&error, Error::Configuration(text) if !text.contains("hunter2")), "{url}: {error}");
    }
    let config = Config { url: "sqlite:///no/such/directory/file".into(), max_connections: 1 };
    assert!(matches!(Store::connect(&config, &Registry::new()).await, Err(Error::Unavailable(_))));
    let config = Config { url: Database::sqlite().url, max_connections: 0 };
    assert!(matches!(Store::connect(&config, &Registry::new()).await, Err(Error::Configuration(_))));
}

#[tokio::test]
async fn an_address_tells_where_and_never_with_what() {
    let sqlite = Database::sqlite();
    assert_eq!(sqlite.open().await.address(), sqlite.url);
    let addresses = [
        (
            "postgres://app:hunter2@db.example/shop?password=hunter2&application_name=x",
            "postgres://db.example:5432/shop",
        ),
        ("postgres://app:hunter2@db.example:7000/shop", "postgres://db.example:7000/shop"),
        ("postgres:///shop?host=/run/postgresql&user=app", "postgres:///run/postgresql/shop"),
    ];
    for (url, address) in addresses {
        assert_eq!(open(url, 1).await.address(), address, "{url}");
    }
}

#[tokio::test]
async fn the_files_of_sqlite_are_private_and_in_wal_mode() {
    let database = Database::sqlite();
    let store = database.seeded().await;
    let directory = database._directory.as_ref().unwrap().path();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["catalogue.db", "catalogue.db-shm", "catalogue.db-wal"]);
    assert_eq!(number(&store, "SELECT synchronous FROM pragma_synchronous").await, 2);
    assert_eq!(number(&store, "SELECT foreign_keys FROM pragma_foreign_keys").await, 1);
    assert_eq!(number(&store, "SELECT timeout FROM pragma_busy_timeout").await, 5_000);
    assert!(store.reader().execute_unprepared("DELETE FROM product").await.is_err(), "a reader can write");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_called_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    std::fs::write(&path, "dear diary, ".repeat(100)).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let config = Config { url: format!("sqlite://{}", path.display()), max_connections: 1 };
    let refused = Store::connect(&config, &Registry::new()).await.err();
    assert!(matches!(refused, Some(Error::Corrupt(_))), "{refused:?}");
}

#[tokio::test]
async fn a_transaction_left_on_a_connection_ends_when_it_returns_to_the_pool() {
    let database = Database::postgres();
    let seeded = database.seeded().await;
    let id = first_products(&seeded, 1).await[0].id;
    // One connection, so that the next borrower gets the same one.
    let store = open(&database.url, 1).await;
    for forgotten in ["BEGIN", "BEGIN; SELECT 1/0"] {
        drop(store.reader().execute_unprepared(forgotten).await);
        let changes = crate::ProductChanges { stock: Some(5), ..Default::default() };
        store.products().update(id, &changes, None).await.unwrap();
    }
    let seen = seeded.products().find(&id.into()).await.unwrap().unwrap();
    assert_eq!((seen.version, seen.stock), (3, 5));
}

#[tokio::test]
async fn a_statement_that_waits_for_a_lock_gives_up_as_busy() {
    let database = Database::postgres();
    let store = database.seeded().await;
    let id = first_products(&store, 1).await[0].id;
    let holder = store.begin().await.unwrap();
    holder.execute_unprepared("LOCK TABLE product IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let started = Instant::now();
    let find = store.products().find(&id.into()).await;
    assert!(matches!(find, Err(Error::Busy(_))), "{find:?}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    holder.rollback().await.unwrap();
    store.products().find(&id.into()).await.unwrap().unwrap();
}

#[tokio::test]
async fn postgres_may_be_away_at_the_start_and_is_found_when_it_comes() {
    let postgres = Postgres::shared();
    let database = Database::postgres();
    let proxy = FaultProxy::start(postgres.address());
    proxy.set(Mode::Reset);
    let store = open(&database.url.replace(&postgres.address().to_string(), &proxy.address().to_string()), 2).await;
    let started = Instant::now();
    let away = store.ping().await;
    assert!(matches!(away, Err(Error::Unavailable(_))), "{away:?}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    proxy.set(Mode::Pass);
    eventually_async(Duration::from_secs(3), async || store.ping().await).await;
}

#[tokio::test]
async fn connections_whose_peer_vanished_are_given_up_and_replaced() {
    let postgres = Postgres::shared();
    let database = Database::postgres();
    let proxy = FaultProxy::start(postgres.address());
    let store = open(&database.url.replace(&postgres.address().to_string(), &proxy.address().to_string()), 2).await;
    store.ping().await.unwrap();
    proxy.set(Mode::BlackHole);
    let started = Instant::now();
    let (first, second) = tokio::join!(store.ping(), store.ping());
    for gone in [first, second] {
        assert!(matches!(gone, Err(Error::Unavailable(_))), "{gone:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    proxy.set(Mode::Pass);
    eventually_async(Duration::from_secs(5), async || store.ping().await).await;
}

#[tokio::test]
async fn connections_that_the_server_ends_are_replaced() {
    let database = Database::postgres();
    let store = database.open().await;
    let name = database.url.rsplit_once('/').unwrap().1;
    for _ in 0..3 {
        // All of them: one that was ended is found out when it is used.
        let all = async || tokio::try_join!(store.ping(), store.ping(), store.ping()).map(drop);
        eventually_async(Duration::from_secs(5), all).await;
        let ended = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'");
        Postgres::shared().execute("postgres", &ended);
        eventually_async(Duration::from_secs(1), async || match store.ping().await {
            Ok(()) => Ok(()),
            Err(Error::Unavailable(text)) => Err(text),
            Err(other) => panic!("{other}"),
        })
        .await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_not_reads() {
    let database = Database::sqlite();
    let store = database.migrated().await;
    let transaction = store.begin().await.unwrap();
    // Of the one connection that writes: the file cannot grow any more.
    transaction.execute_unprepared("PRAGMA max_page_count = 1").await.unwrap();
    transaction.commit().await.unwrap();
    let full = store.seed_if_empty(super::SMALL, |_, _| {}).await;
    assert!(matches!(full, Err(Error::Full(_))), "{full:?}");
    assert_eq!(store.catalogue_version().await.unwrap(), 1);
    assert_eq!(first_products(&store, 1).await, []);
}

#[tokio::test]
async fn every_question_to_the_database_is_counted_once() {
    for (database, system) in Database::both().into_iter().zip(["sqlite", "postgresql"]) {
        let seeded = database.seeded().await;
        let key = first_products(&seeded, 1).await[0].id.into();
        let registry = Registry::new();
        let config = Config { url: database.url.clone(), max_connections: 1 };
        let store = Store::connect(&config, &registry).await.unwrap();
        let finds = || {
            let wanted = ["_count", system, "product.find"];
            let text = registry.snapshot().render();
            let line = text.lines().find(|line| wanted.iter().all(|part| line.contains(part))).unwrap().to_owned();
            line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
        };
        assert_eq!(finds(), 0);
        for count in 1..=3 {
            store.products().find(&key).await.unwrap().unwrap();
            assert_eq!(finds(), count);
        }
        store.catalogue_version().await.unwrap();
        assert_eq!(finds(), 3);
    }
}
