//! What callers get and give: plain data, independent of tables.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A product with the names of its category and vendor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// UUIDv7.
    pub id: Uuid,
    /// Who sells it.
    pub vendor: Named,
    /// Where it is listed.
    pub category: Named,
    /// What it is called, on one line.
    pub name: String,
    /// Unique, never changes.
    pub slug: String,
    /// Plain text.
    pub description: String,
    /// What one costs.
    pub price: Price,
    /// Pieces available, not negative.
    pub stock: i64,
    /// 1 when created, one more with every change.
    pub version: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// A vendor or a category as a product shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// UUIDv7.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// For URLs, unique among its kind.
    pub slug: String,
}

/// A category of the catalogue.
pub type Category = Named;

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// In the currency's smallest unit (cents), not negative.
    pub minor: i64,
    /// ISO 4217, three capital letters.
    pub currency: String,
}

/// What an update sets; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProductChanges {
    /// The new name; the slug stays.
    pub name: Option<String>,
    /// The new description.
    pub description: Option<String>,
    /// The new price in minor units; the currency stays.
    pub price_minor: Option<i64>,
    /// The new number of pieces.
    pub stock: Option<i64>,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// The product as it is now.
    Updated(Box<Product>),
    /// There is no product of this id.
    NotFound,
    /// Somebody changed it first; nothing was written.
    VersionMismatch {
        /// The version it has now.
        current: i64,
    },
}
