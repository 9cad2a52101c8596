//! `/api/v1/products` and `/api/v1/categories`.

use actix_web::http::header::{
    CACHE_CONTROL, CACHE_STATUS, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, LINK,
};
use actix_web::web::{Data, Json, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use cache::{Hit, Source};
use store::IdOrSlug;

use crate::authentication::Bearer;
use crate::conditional::{IfMatch, none_match_hits};
use crate::document::Document;
use crate::error::ApiError;
use crate::listing::{ListingParameters, ListingQuery};
use crate::product_changes::ProductPatch;
use crate::state::AppState;

/// `GET /products/{id or slug}`
pub(crate) async fn show(
    state: Data<AppState>,
    key: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let hit = state.catalogue.product(&parse_key(&key)?).await?;
    answer(&request, &hit)
}

/// `GET /products?category=&q=&limit=&cursor=`
pub(crate) async fn list(
    state: Data<AppState>,
    parameters: Query<ListingParameters>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let query = ListingQuery::try_from(parameters.into_inner())?;
    let hit = state.catalogue.list(&query).await?;
    answer(&request, &hit)
}

/// `GET /categories`
pub(crate) async fn categories(state: Data<AppState>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let hit = state.catalogue.categories().await?;
    answer(&request, &hit)
}

/// `PATCH /products/{id or slug}`
pub(crate) async fn update(
    state: Data<AppState>,
    key: Path<String>,
    bearer: Bearer,
    request: HttpRequest,
    patch: Json<ProductPatch>,
) -> Result<HttpResponse, ApiError> {
    let actor = bearer.vendor_or_admin()?;
    let key = parse_key(&key)?;
    let changes = patch.into_inner().try_into()?;
    let if_match = IfMatch::parse(text_of(&request, &IF_MATCH));
    let catalogue = state.catalogue.clone();
    // A client that goes away cuts its answer, never the write.
    let document = edge::detach(async move { catalogue.update(&key, changes, if_match, &actor).await }).await?;
    Ok(fresh(&document))
}

/// Text that is neither an id nor a slug names nothing.
fn parse_key(text: &str) -> Result<IdOrSlug, ApiError> {
    text.parse().map_err(|_| ApiError::NotFound)
}

fn answer(request: &HttpRequest, hit: &Hit<Document>) -> Result<HttpResponse, ApiError> {
    let document = hit.value.as_deref().ok_or(ApiError::NotFound)?;
    let etag = str::from_utf8(&document.etag).unwrap_or_default();
    let unchanged = text_of(request, &IF_NONE_MATCH).is_some_and(|header| none_match_hits(header, etag));
    let mut response = if unchanged { HttpResponse::NotModified().finish() } else { fresh(document) };
    let headers = response.headers_mut();
    if unchanged {
        headers.insert(ETAG, value(&document.etag));
        headers.insert(CACHE_CONTROL, REVALIDATE);
    }
    headers.insert(CACHE_STATUS, cache_status(hit));
    Ok(response)
}

const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

fn fresh(document: &Document) -> HttpResponse {
    let mut response = HttpResponse::Ok().body(document.body.clone());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ETAG, value(&document.etag));
    headers.insert(CACHE_CONTROL, REVALIDATE);
    if let Some(link) = &document.link {
        headers.insert(LINK, value(link));
    }
    response
}

/// RFC 9211. The detail tells which of our levels answered.
fn cache_status(hit: &Hit<Document>) -> HeaderValue {
    if hit.stale {
        return HeaderValue::from_static("bellwether; hit; detail=stale");
    }
    HeaderValue::from_static(match (hit.source, hit.collapsed, hit.shared) {
        (Source::L1, ..) => "bellwether; hit; detail=l1",
        (Source::L2, ..) => "bellwether; hit; detail=l2",
        (Source::Loader, true, _) => "bellwether; fwd=miss; collapsed",
        (Source::Loader, false, true) => "bellwether; fwd=miss; stored",
        (Source::Loader, false, false) => "bellwether; fwd=miss",
    })
}

/// Made by us from plain ASCII, so it is always a header's value.
fn value(bytes: &Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes.clone()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn text_of<'a>(request: &'a HttpRequest, name: &HeaderName) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}
