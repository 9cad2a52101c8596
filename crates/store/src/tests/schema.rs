//! Migrations, forth and back, and schemas that do not fit.

use sea_orm::ConnectionTrait;

use super::{Database, number};
use crate::{Error, Schema, Store};

async fn execute(store: &Store, sql: &str) {
    let transaction = store.begin().await.unwrap();
    transaction.execute_unprepared(sql).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_fresh_database_is_older_until_it_is_migrated() {
    for database in Database::both() {
        let store = database.open().await;
        let Schema::Older { pending } = store.schema().await.unwrap() else { panic!("not older") };
        let early = store.catalogue_version().await;
        assert!(matches!(early, Err(Error::Schema(_))), "{early:?}");
        assert_eq!(store.migrate().await.unwrap(), pending);
        assert_eq!(store.schema().await.unwrap(), Schema::Current);
        assert_eq!(store.migrate().await.unwrap(), Vec::<String>::new());
        assert_eq!(store.catalogue_version().await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_migration_can_be_undone_and_done_again() {
    for database in Database::both() {
        let store = database.seeded().await;
        let Some(newest) = store.rollback_newest_migration().await.unwrap() else { panic!("nothing undone") };
        assert_eq!(store.schema().await.unwrap(), Schema::Older { pending: vec![newest.clone()] });
        assert_eq!(store.rollback_newest_migration().await.unwrap(), None);
        assert_eq!(store.migrate().await.unwrap(), [newest]);
        assert_eq!(number(&store, "SELECT count(*) FROM product").await, 0);
    }
}

#[tokio::test]
async fn a_newer_database_is_served_but_not_changed() {
    for database in Database::both() {
        let store = database.migrated().await;
        execute(&store, "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m29990101_000001_future', 0)")
            .await;
        let unknown = vec!["m29990101_000001_future".to_owned()];
        assert_eq!(store.schema().await.unwrap(), Schema::Newer { unknown });
        for refused in [store.migrate().await.map(drop), store.rollback_newest_migration().await.map(drop)] {
            assert!(matches!(&refused, Err(Error::Schema(text)) if text.contains("m29990101")), "{refused:?}");
        }
        assert_eq!(store.catalogue_version().await.unwrap(), 1);
    }
}
