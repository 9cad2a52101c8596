//! Demo data.

use tokio::task::JoinSet;

use super::{Database, SMALL, number};
use crate::{Seed, SeedOutcome, SeedSize};

/// Of 1,000 products made from the number 42. It may change with the words or the columns, on purpose.
const CHECKSUM: &str = "b2aee9061efb32df31c7f5b01c3370bf";

#[tokio::test]
async fn the_same_seed_gives_the_same_rows_on_both_databases() {
    for database in Database::both() {
        let store = database.seeded().await;
        assert_eq!(store.checksum().await.unwrap(), CHECKSUM, "{}", database.url);
    }
    let database = Database::sqlite();
    let other = database.migrated().await;
    other.seed_if_empty(Seed { number: 43, ..SMALL }, |_, _| {}).await.unwrap();
    assert_ne!(other.checksum().await.unwrap(), CHECKSUM);
}

#[tokio::test]
async fn only_an_empty_database_is_filled_and_progress_is_told() {
    for database in Database::both() {
        let store = database.migrated().await;
        let mut seen = Vec::new();
        let outcome = store.seed_if_empty(SMALL, |done, total| seen.push((done, total))).await.unwrap();
        assert_eq!(outcome, SeedOutcome::Seeded { products: 1_000 });
        assert_eq!(seen, [(0, 1_000), (500, 1_000), (1_000, 1_000)]);
        assert_eq!(store.catalogue_version().await.unwrap(), 2);
        let before = store.checksum().await.unwrap();
        let again = store.seed_if_empty(SMALL, |_, _| panic!("nothing to do")).await.unwrap();
        assert_eq!(again, SeedOutcome::NotEmpty);
        assert_eq!(store.checksum().await.unwrap(), before);
    }
}

#[tokio::test]
async fn a_seed_that_is_cut_short_leaves_the_database_empty() {
    for database in Database::both() {
        let store = database.migrated().await;
        let seeding = store.clone();
        let mut task = JoinSet::new();
        let half_way = |done, _| assert!(done < 500, "cut short");
        task.spawn(async move { seeding.seed_if_empty(SMALL, half_way).await });
        assert!(task.join_next().await.unwrap().is_err_and(|ended| ended.is_panic()));
        assert_eq!(number(&store, "SELECT count(*) FROM vendor").await, 0);
        store.seed_if_empty(SMALL, |_, _| {}).await.unwrap();
        assert_eq!(number(&store, "SELECT count(*) FROM product").await, 1_000);
    }
}

#[tokio::test]
async fn the_large_seed_is_equal_on_both_databases() {
    let mut checksums = Vec::new();
    for database in Database::both() {
        let store = database.migrated().await;
        store.seed_if_empty(Seed { size: SeedSize::Large, number: 42 }, |_, _| {}).await.unwrap();
        checksums.push(store.checksum().await.unwrap());
    }
    assert_eq!(checksums[0], checksums[1]);
}
