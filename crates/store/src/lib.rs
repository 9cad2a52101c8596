#![doc = include_str!("../README.md")]

mod categories;
mod checksum;
mod config;
mod connect;
mod entity;
mod error;
mod key;
mod list;
mod metrics;
mod migration;
mod model;
mod products;
mod schema;
mod seed;
mod store;
#[cfg(test)]
mod tests;

pub use categories::Categories;
pub use config::Config;
pub use error::Error;
pub use key::{IdOrSlug, InvalidKey, Slug};
pub use list::{Cursor, InvalidCursor, ListFilter, MAX_LIMIT, Page};
pub use model::{Category, Named, Price, Product, ProductChanges, UpdateOutcome};
pub use products::Products;
pub use schema::Schema;
pub use seed::{Seed, SeedOutcome, SeedSize};
pub use store::Store;
