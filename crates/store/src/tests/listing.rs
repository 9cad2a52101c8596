//! Pages of products.

use std::collections::HashSet;

use uuid::Uuid;

use super::Database;
use crate::{ListFilter, Product, ProductChanges, Store, UpdateOutcome};

/// Every page's items, in order, following the cursors.
async fn walk(store: &Store, mut filter: ListFilter) -> Vec<Product> {
    let mut all = Vec::new();
    loop {
        let page = store.products().list(&filter).await.unwrap();
        assert!(page.items.len() <= filter.limit as usize);
        all.extend(page.items);
        match page.next {
            // Through its text, as a client returns it.
            Some(next) => filter.after = Some(next.to_string().parse().unwrap()),
            None => return all,
        }
    }
}

#[tokio::test]
async fn pages_cover_every_product_exactly_once() {
    for database in Database::both() {
        let store = database.seeded().await;
        let ids = |products: &[Product]| products.iter().map(|product| product.id).collect::<Vec<Uuid>>();
        // 1,000 is a multiple of 100 and not of 7: the last page is full, or not.
        for limit in [7, 100] {
            let all = ids(&walk(&store, ListFilter { limit, ..ListFilter::default() }).await);
            assert_eq!(all.len(), 1_000);
            assert!(all.is_sorted_by(|left, right| left < right));
        }
        let mut seen = HashSet::new();
        for category in store.categories().all().await.unwrap() {
            let filter = ListFilter { category: Some(category.slug.clone()), limit: 9, ..ListFilter::default() };
            for product in walk(&store, filter).await {
                assert_eq!(product.category, category);
                assert!(seen.insert(product.id));
            }
        }
        assert_eq!(seen.len(), 1_000);
    }
}

#[tokio::test]
async fn a_search_combines_with_a_category_and_pages() {
    for database in Database::both() {
        let store = database.seeded().await;
        let all = walk(&store, ListFilter { limit: 100, ..ListFilter::default() }).await;
        let (q, slug) = ("oRGANIC", "coffee-tea");
        let wanted: Vec<Product> = all
            .into_iter()
            .filter(|product| product.name.contains("Organic") && product.category.slug == slug)
            .collect();
        assert!(wanted.len() > 3, "the seed has {} of them", wanted.len());
        let filter = ListFilter { q: Some(q.into()), category: Some(slug.into()), limit: 2, ..ListFilter::default() };
        assert_eq!(walk(&store, filter).await, wanted);
        let nothing = ListFilter { category: Some("no-such".into()), ..ListFilter::default() };
        assert_eq!(walk(&store, nothing).await, []);
    }
}

#[tokio::test]
async fn a_search_takes_wildcards_and_quotes_for_what_they_are_and_ignores_case() {
    let names =
        ["100% Cotton", "100 Cotton", "a_b", "aXb", "wow! yes", "back\\slash", "it's \"so\"", "CRÈME BRÛLÉE", "Straße"];
    for database in Database::both() {
        let store = database.seeded().await;
        let products = super::first_products(&store, names.len() as u32).await;
        for (product, name) in products.iter().zip(names) {
            let changes = ProductChanges { name: Some(name.into()), ..ProductChanges::default() };
            let outcome = store.products().update(product.id, &changes, None).await.unwrap();
            assert!(matches!(outcome, UpdateOutcome::Updated(_)));
        }
        let check = async |q: &str, expected: &[&str]| {
            let filter = ListFilter { q: Some(q.into()), limit: 100, ..ListFilter::default() };
            let found = walk(&store, filter).await;
            let found: Vec<&str> = found.iter().map(|product| product.name.as_str()).collect();
            assert_eq!(found, expected, "{q:?}");
        };
        check("0% c", &["100% Cotton"]).await;
        check("A_B", &["a_b"]).await;
        check("!", &["wow! yes"]).await;
        check("K\\S", &["back\\slash"]).await;
        check("t's \"", &["it's \"so\""]).await;
        check("crème brû", &["CRÈME BRÛLÉE"]).await;
        check("STRAßE", &["Straße"]).await;
        check("%%", &[]).await;
        check("'; DROP TABLE product; --", &[]).await;
    }
}

#[tokio::test]
async fn limits_outside_of_the_range_are_brought_into_it() {
    let database = Database::sqlite();
    let store = database.seeded().await;
    for (asked, given) in [(0, 1), (1, 1), (100, 100), (u32::MAX, 100)] {
        let page = store.products().list(&ListFilter { limit: asked, ..ListFilter::default() }).await.unwrap();
        assert_eq!(page.items.len(), given);
        assert!(page.next.is_some());
    }
}
