//! The product catalogue: reads through the cache, writes that no worker's cache outlives. No HTTP.

use auth::{Identity, Role};
use cache::{Cache, Caches, Hit, Namespace, Options};
use store::{IdOrSlug, Product, ProductChanges, Store, UpdateOutcome};

use crate::conditional::IfMatch;
use crate::document::Document;
use crate::error::ApiError;
use crate::listing::ListingQuery;

/// The one key of the namespace that holds the catalogue's version.
const VERSION: &str = "version";
/// The list of all categories, which no product write changes.
const CATEGORIES: &str = "categories";

/// Cheap to clone.
#[derive(Clone)]
pub struct Catalogue {
    store: Store,
    caches: Caches,
    options: Options,
    products: Cache<Document>,
    lists: Cache<Document>,
    /// Every product write raises it; lists are kept under it, so one invalidation outdates them all.
    versions: Cache<i64>,
}

impl Catalogue {
    /// Reads from `store` through `caches`.
    pub fn new(store: Store, caches: &Caches) -> Self {
        Self {
            store,
            caches: caches.clone(),
            options: caches.options(),
            products: caches.namespace(Namespace { name: "product", schema: 1 }),
            lists: caches.namespace(Namespace { name: "list", schema: 1 }),
            versions: caches.namespace(Namespace { name: "catalogue", schema: 1 }),
        }
    }

    /// One product; a hit without a value says that there is none.
    pub(crate) async fn product(&self, key: &IdOrSlug) -> Result<Hit<Document>, ApiError> {
        let load = {
            let (products, key) = (self.store.products(), key.clone());
            move || async move {
                let product = products.find(&key).await?;
                product.as_ref().map(Document::of_product).transpose().map_err(damaged)
            }
        };
        Ok(self.products.get_or_load(&key.to_string(), &self.options, load).await?)
    }

    /// One page of products.
    pub(crate) async fn list(&self, query: &ListingQuery) -> Result<Hit<Document>, ApiError> {
        let version = self.version().await?;
        let load = {
            let (products, query) = (self.store.products(), query.clone());
            move || async move {
                let page = products.list(query.filter()).await?;
                Document::of_page(&page, &query).map(Some).map_err(damaged)
            }
        };
        Ok(self.lists.get_or_load(&query.cache_key(version), &self.options, load).await?)
    }

    /// All categories.
    pub(crate) async fn categories(&self) -> Result<Hit<Document>, ApiError> {
        let categories = self.store.categories();
        let load = move || async move { Document::of_categories(&categories.all().await?).map(Some).map_err(damaged) };
        Ok(self.lists.get_or_load(CATEGORIES, &self.options, load).await?)
    }

    /// Changes a product for `actor` and makes every worker forget what it knew of it.
    ///
    /// A vendor's change of somebody else's product is answered like that of an absent one.
    pub(crate) async fn update(
        &self,
        key: &IdOrSlug,
        changes: ProductChanges,
        if_match: IfMatch,
        actor: &Identity,
    ) -> Result<Document, ApiError> {
        let products = self.store.products();
        let before = products.find(key).await?.ok_or(ApiError::NotFound)?;
        if !may_change(actor, &before) {
            return Err(ApiError::NotFound);
        }
        let expected = match if_match {
            IfMatch::Any => None,
            IfMatch::Version(version) => Some(version),
            IfMatch::Never => return Err(ApiError::VersionMismatch { current: before.version }),
        };
        let outcome = products.update(before.id, &changes, expected).await;
        // A write whose answer was lost may have happened, so only a refused one leaves the caches as they are.
        if !matches!(outcome, Err(store::Error::Conflict(_)) | Ok(UpdateOutcome::VersionMismatch { .. })) {
            self.forget(&before).await;
        }
        match outcome? {
            UpdateOutcome::Updated(product) => Ok(Document::of_product(&product)?),
            UpdateOutcome::NotFound => Err(ApiError::NotFound),
            UpdateOutcome::VersionMismatch { current } => Err(ApiError::VersionMismatch { current }),
        }
    }

    async fn version(&self) -> Result<i64, ApiError> {
        let store = self.store.clone();
        let load = move || async move { store.catalogue_version().await.map(Some) };
        let version = self.versions.get_or_load(VERSION, &self.options, load).await?;
        version.value.map(|version| *version).ok_or_else(|| ApiError::Internal("the catalogue has no version".into()))
    }

    /// Once this returns no worker that Redis can reach answers with what was true before.
    async fn forget(&self, product: &Product) {
        let id = self.products.key(&product.id.to_string());
        let slug = self.products.key(&product.slug);
        self.caches.invalidate(&[id, slug, self.versions.key(VERSION)]).await;
    }
}

fn may_change(actor: &Identity, product: &Product) -> bool {
    match actor.role {
        Role::Admin => true,
        Role::Vendor => actor.vendor_id == Some(product.vendor.id),
        Role::Retailer => false,
    }
}

fn damaged(error: serde_json::Error) -> store::Error {
    store::Error::Corrupt(error.to_string())
}
