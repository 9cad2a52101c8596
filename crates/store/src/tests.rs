//! Tests that need a database run on both: a SQLite file and a PostgreSQL database of the test's own.

mod catalogue;
mod connections;
mod listing;
mod processes;
mod schema;
mod seed;
mod storm;

use sea_orm::{ConnectionTrait, Statement};
use tempfile::TempDir;
use test_support::Postgres;

use crate::{Config, Product, Seed, SeedSize, Store};

/// An empty database that ends with this value.
struct Database {
    url: String,
    _directory: Option<TempDir>,
}

impl Database {
    fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("catalogue.db").display());
        Self { url, _directory: Some(directory) }
    }

    fn postgres() -> Self {
        Self { url: Postgres::shared().database(), _directory: None }
    }

    fn both() -> [Self; 2] {
        [Self::sqlite(), Self::postgres()]
    }

    async fn open(&self) -> Store {
        open(&self.url, 4).await
    }

    async fn migrated(&self) -> Store {
        let store = self.open().await;
        store.migrate().await.unwrap();
        store
    }

    /// With 1,000 products.
    async fn seeded(&self) -> Store {
        let store = self.migrated().await;
        store.seed_if_empty(SMALL, |_, _| {}).await.unwrap();
        store
    }
}

const SMALL: Seed = Seed { size: SeedSize::Small, number: 42 };

async fn open(url: &str, max_connections: u32) -> Store {
    let config = Config { url: url.to_owned(), max_connections };
    Store::connect(&config, &telemetry::Registry::new()).await.unwrap()
}

/// The first products by id.
async fn first_products(store: &Store, limit: u32) -> Vec<Product> {
    store.products().list(&crate::ListFilter { limit, ..Default::default() }).await.unwrap().items
}

/// The first column of the first row, a number.
async fn number(store: &Store, sql: &str) -> i64 {
    let statement = Statement::from_string(store.reader().get_database_backend(), sql);
    store.reader().query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}
