//! The product catalogue: reads through the cache, writes that no worker's cache outlives. No HTTP.

use std::error::Error;
use std::num::NonZeroU32;
use std::time::Duration;

use auth::{Identity, Role};
use cache::{Cache, CacheKey, Caches, Hit, LoadError, Loaded, Namespace, Options};
use store::{IdOrSlug, ListFilter, MAX_LIMIT, Product, ProductChanges, Store, UpdateOutcome};
use tokio::time::{MissedTickBehavior, interval};

use crate::conditional::IfMatch;
use crate::document::Document;
use crate::error::ApiError;
use crate::listing::ListingQuery;

/// All that is cached.
pub const NAMESPACES: [Namespace; 2] = [PRODUCTS, LISTS];

const PRODUCTS: Namespace = Namespace { name: "product", schema: 1 };
const LISTS: Namespace = Namespace { name: "list", schema: 1 };

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
}

/// How far a warm-up has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Warmed {
    /// Products that Redis has now.
    pub cached: u64,
    /// Products that could be read, and not be stored.
    pub refused: u64,
}

impl Catalogue {
    /// Reads from `store` through `caches`.
    pub fn new(store: Store, caches: &Caches) -> Self {
        Self {
            store,
            caches: caches.clone(),
            options: caches.options(),
            products: caches.namespace(PRODUCTS),
            lists: caches.namespace(LISTS),
        }
    }

    /// One product; a hit without a value says that there is none.
    pub(crate) async fn product(&self, key: &IdOrSlug) -> Result<Hit<Document>, ApiError> {
        Ok(self.cached_product(key).await?)
    }

    /// Reads every product through the cache, under its id, at most so many in a second, and tells after each how many are cached
    /// and how many Redis did not take. What Redis has already costs no query.
    pub async fn warm(
        &self,
        per_second: NonZeroU32,
        mut progress: impl FnMut(Warmed),
    ) -> Result<Warmed, Box<dyn Error + Send + Sync>> {
        let (mut filter, mut done) = (ListFilter { limit: MAX_LIMIT, ..ListFilter::default() }, Warmed::default());
        let mut turns = interval((Duration::from_secs(1) / per_second.get()).max(Duration::from_nanos(1)));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let page = self.store.products().list(&filter).await?;
            for product in &page.items {
                turns.tick().await;
                match self.cached_product(&product.id.into()).await?.shared {
                    true => done.cached += 1,
                    false => done.refused += 1,
                }
                progress(done);
            }
            match page.next {
                None => return Ok(done),
                next => filter.after = next,
            }
        }
    }

    async fn cached_product(&self, key: &IdOrSlug) -> Result<Hit<Document>, LoadError> {
        let load = {
            let (products, key) = (self.store.products(), key.clone());
            move || async move {
                let Some(product) = products.find(&key).await? else { return Ok(Loaded::from(None)) };
                let document = Document::of_product(&product).map_err(damaged)?;
                Ok::<_, store::Error>(Loaded { tags: tags_of(&product), ..Some(document).into() })
            }
        };
        self.products.get_or_load(&key.to_string(), &self.options, load).await
    }

    /// One page of products.
    pub(crate) async fn list(&self, query: &ListingQuery) -> Result<Hit<Document>, ApiError> {
        let load = {
            let (products, query) = (self.store.products(), query.clone());
            move || async move {
                let page = products.list(query.filter()).await?;
                let document = Document::of_page(&page, &query).map_err(damaged)?;
                let tag = listing(query.filter().category.as_deref());
                Ok::<_, store::Error>(Loaded { tags: vec![tag], ..Some(document).into() })
            }
        };
        Ok(self.lists.get_or_load(&query.cache_key(), &self.options, load).await?)
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
        let change = self.caches.announce(&self.shown_by(&before)).await;
        let outcome = products.update(before.id, &changes, expected).await;
        // Once this is said no worker that Redis can reach answers with what was true before.
        match outcome {
            Ok(UpdateOutcome::Updated(_) | UpdateOutcome::NotFound) => drop(change.committed().await),
            Ok(UpdateOutcome::VersionMismatch { .. }) | Err(store::Error::Conflict(_) | store::Error::Busy(_)) => {
                change.withdrawn().await;
            }
            // A write whose answer was lost may have happened.
            Err(_) => drop(change.in_doubt().await),
        }
        match outcome? {
            UpdateOutcome::Updated(product) => Ok(Document::of_product(&product)?),
            UpdateOutcome::NotFound => Err(ApiError::NotFound),
            UpdateOutcome::VersionMismatch { current } => Err(ApiError::VersionMismatch { current }),
        }
    }

    /// All that shows a product: itself, under its id and its slug, and every list that shows it or now should.
    fn shown_by(&self, product: &Product) -> Vec<CacheKey> {
        let id = self.products.key(&product.id.to_string());
        let slug = self.products.key(&product.slug);
        let tags = [format!("product:{}", product.id), listing(None), listing(Some(&product.category.slug))];
        [id, slug].into_iter().chain(tags.iter().map(|tag| self.caches.tag(tag))).collect()
    }
}

/// What a product's document shows.
fn tags_of(product: &Product) -> Vec<String> {
    let Product { id, category, vendor, .. } = product;
    vec![format!("product:{id}"), format!("category:{}", category.slug), format!("vendor:{}", vendor.id)]
}

/// The tag of all lists of one category, or of all that are of none: a change of any product may put it on another page of
/// them.
fn listing(category: Option<&str>) -> String {
    match category {
        Some(slug) => format!("listing:{slug}"),
        None => "listing".to_owned(),
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
