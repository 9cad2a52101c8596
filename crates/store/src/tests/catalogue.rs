//! One product at a time: finding and changing it.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Database, first_products};
use crate::{Error, ProductChanges, Store, UpdateOutcome};

fn price(minor: i64) -> ProductChanges {
    ProductChanges { price_minor: Some(minor), ..ProductChanges::default() }
}

#[tokio::test]
async fn a_product_is_found_by_id_and_by_slug_with_its_names() {
    for database in Database::both() {
        let store = database.seeded().await;
        let expected = first_products(&store, 3).await.pop().unwrap();
        let by_id = store.products().find(&expected.id.into()).await.unwrap();
        let by_slug = store.products().find(&expected.slug.parse().unwrap()).await.unwrap();
        assert_eq!(by_id.as_ref(), Some(&expected));
        assert_eq!(by_slug, by_id);
        let categories = store.categories().all().await.unwrap();
        assert!(categories.contains(&expected.category), "{:?}", expected.category);
        assert!(categories.is_sorted_by(|left, right| left.name < right.name));
        assert_eq!(store.products().find(&Uuid::max().into()).await.unwrap(), None);
        assert_eq!(store.products().find(&"no-such-slug".parse().unwrap()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_both_versions() {
    for database in Database::both() {
        let store = database.seeded().await;
        let before = first_products(&store, 1).await.pop().unwrap();
        let catalogue = store.catalogue_version().await.unwrap();
        let changes = ProductChanges { name: Some("ÉCLAIR".into()), stock: Some(7), ..price(1234) };
        let outcome = store.products().update(before.id, &changes, Some(1)).await.unwrap();
        let UpdateOutcome::Updated(after) = outcome else { panic!("{outcome:?}") };
        assert_eq!((after.version, after.price.minor, after.stock, after.name.as_str()), (2, 1234, 7, "ÉCLAIR"));
        assert_eq!(
            (&after.description, &after.slug, after.created_at),
            (&before.description, &before.slug, before.created_at)
        );
        assert!(after.updated_at > before.updated_at && after.updated_at <= Timestamp::now());
        assert_eq!(store.catalogue_version().await.unwrap(), catalogue + 1);
        assert_eq!(store.products().find(&before.id.into()).await.unwrap(), Some(*after));
    }
}

#[tokio::test]
async fn an_update_that_does_not_apply_writes_nothing() {
    for database in Database::both() {
        let store = database.seeded().await;
        let before = state(&store).await;
        let id = first_products(&store, 1).await[0].id;
        let products = store.products();
        let mismatch = products.update(id, &price(1), Some(9)).await.unwrap();
        assert_eq!(mismatch, UpdateOutcome::VersionMismatch { current: 1 });
        assert_eq!(products.update(Uuid::max(), &price(1), None).await.unwrap(), UpdateOutcome::NotFound);
        assert_eq!(products.update(Uuid::max(), &price(1), Some(1)).await.unwrap(), UpdateOutcome::NotFound);
        let refused = products.update(id, &price(-1), None).await;
        assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
        assert_eq!(state(&store).await, before);
        // And no lock is left behind.
        assert!(matches!(products.update(id, &price(1), Some(1)).await.unwrap(), UpdateOutcome::Updated(_)));
    }
}

async fn state(store: &Store) -> (String, i64) {
    (store.checksum().await.unwrap(), store.catalogue_version().await.unwrap())
}

#[tokio::test]
async fn of_writers_that_expect_the_same_version_one_wins() {
    for database in Database::both() {
        let store = database.seeded().await;
        let id = first_products(&store, 1).await[0].id;
        let mut tasks = tokio::task::JoinSet::new();
        for minor in 0..8 {
            let products = store.products();
            tasks.spawn(async move { products.update(id, &price(minor), Some(1)).await.unwrap() });
        }
        let outcomes = tasks.join_all().await;
        let won = outcomes.iter().filter(|outcome| matches!(outcome, UpdateOutcome::Updated(_))).count();
        let lost = outcomes.iter().filter(|outcome| **outcome == UpdateOutcome::VersionMismatch { current: 2 }).count();
        assert_eq!((won, lost), (1, 7));
    }
}
