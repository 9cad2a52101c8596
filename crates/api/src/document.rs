//! What the cache keeps: an answer as the bytes that go out, with its entity tag.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::{Category, Named, Page, Product};
use uuid::Uuid;

use crate::conditional::version_tag;
use crate::listing::ListingQuery;

/// A finished JSON answer. A hit sends it without serialising anything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) body: bytes::Bytes,
    /// Quoted, ready for the `ETag` header.
    pub(crate) etag: bytes::Bytes,
    /// The `Link` header of a page that has a next one.
    pub(crate) link: Option<bytes::Bytes>,
}

impl Document {
    /// One product; its entity tag names the version that `If-Match` takes.
    pub(crate) fn of_product(product: &Product) -> Result<Self, serde_json::Error> {
        Ok(Self {
            body: serde_json::to_vec(&ProductView::from(product))?.into(),
            etag: version_tag(product.version).into(),
            link: None,
        })
    }

    /// One page of products; its entity tag names the content.
    pub(crate) fn of_page(page: &Page<Product>, query: &ListingQuery) -> Result<Self, serde_json::Error> {
        let next_cursor = page.next.as_ref().map(ToString::to_string);
        let link =
            next_cursor.as_deref().map(|cursor| format!("<{}>; rel=\"next\"", query.path_with_cursor(cursor)).into());
        let body =
            serde_json::to_vec(&List { items: page.items.iter().map(ProductView::from).collect(), next_cursor })?;
        Ok(Self { etag: content_tag(&body), body: body.into(), link })
    }

    /// All categories, as a list without a next page.
    pub(crate) fn of_categories(categories: &[Category]) -> Result<Self, serde_json::Error> {
        let body =
            serde_json::to_vec(&List { items: categories.iter().map(NamedView::from).collect(), next_cursor: None })?;
        Ok(Self { etag: content_tag(&body), body: body.into(), link: None })
    }
}

fn content_tag(body: &[u8]) -> bytes::Bytes {
    let mut tag = String::with_capacity(18);
    let _ = write!(tag, "\"{:016x}\"", xxhash_rust::xxh3::xxh3_64(body));
    tag.into()
}

#[derive(Serialize)]
struct List<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct ProductView<'a> {
    id: Uuid,
    slug: &'a str,
    name: &'a str,
    description: &'a str,
    price: Money<'a>,
    stock: i64,
    category: NamedView<'a>,
    vendor: NamedView<'a>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// Integer minor units plus an ISO 4217 code.
#[derive(Serialize)]
struct Money<'a> {
    amount: i64,
    currency: &'a str,
}

#[derive(Serialize)]
struct NamedView<'a> {
    id: Uuid,
    slug: &'a str,
    name: &'a str,
}

impl<'a> From<&'a Product> for ProductView<'a> {
    fn from(product: &'a Product) -> Self {
        Self {
            id: product.id,
            slug: &product.slug,
            name: &product.name,
            description: &product.description,
            price: Money { amount: product.price.minor, currency: &product.price.currency },
            stock: product.stock,
            category: (&product.category).into(),
            vendor: (&product.vendor).into(),
            version: product.version,
            created_at: product.created_at,
            updated_at: product.updated_at,
        }
    }
}

impl<'a> From<&'a Named> for NamedView<'a> {
    fn from(named: &'a Named) -> Self {
        Self { id: named.id, slug: &named.slug, name: &named.name }
    }
}
