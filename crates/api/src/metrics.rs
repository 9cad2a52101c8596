//! `/metrics` on the admin listener: this worker's own figures as Prometheus text.

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::web::Data;
use telemetry::Registry;

/// The format is Prometheus's text exposition format 0.0.4.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(crate) async fn show(registry: Data<Registry>) -> HttpResponse {
    let mut snapshot = registry.snapshot();
    snapshot.merge(&telemetry::process_snapshot());
    let mut response = HttpResponse::Ok().body(snapshot.render());
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}
