//! All routes of the service, and what every request goes through.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::web::{self, Data, JsonConfig, QueryConfig, ServiceConfig};
use actix_web::{App, Error, HttpResponse, Resource, Route, guard};
use edge::Problem;

use crate::error::ApiError;
use crate::front::Front;
use crate::metrics::Metrics;
use crate::state::AppState;
use crate::{health, metrics, products};

const MAX_JSON_BYTES: usize = 256 * 1024;

/// The public service.
pub fn application(
    state: AppState,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    App::new()
        .wrap(Front::new(&state))
        .app_data(Data::new(state))
        .app_data(json_config())
        .app_data(QueryConfig::default().error_handler(|error, _| ApiError::from(error).into()))
        .configure(public_routes)
        .default_service(web::to(not_found))
}

/// The admin listener's service: loopback only, so no limits.
pub fn admin_application(
    metrics: Metrics,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    App::new()
        .app_data(Data::new(metrics))
        .service(read_only("/metrics", || web::to(metrics::show)))
        .default_service(web::to(not_found))
}

fn public_routes(config: &mut ServiceConfig) {
    config
        .service(read_only("/livez", || web::to(health::livez)))
        .service(read_only("/readyz", || web::to(health::readyz)))
        .service(read_only("/up", || web::to(health::readyz)))
        .service(read_only("/health", || web::to(health::health)))
        .service(read_only("/api/v1/products", || web::to(products::list)))
        .service(read_only("/api/v1/categories", || web::to(products::categories)))
        .service(
            web::resource("/api/v1/products/{key}")
                .route(web::get().to(products::show))
                .route(web::head().to(products::show))
                .route(web::patch().to(products::update))
                .default_service(web::to(|| only("GET, HEAD, PATCH"))),
        );
}

fn read_only(path: &str, handler: impl Fn() -> Route) -> Resource {
    web::resource(path)
        .route(handler().guard(guard::Any(guard::Get()).or(guard::Head())))
        .default_service(web::to(|| only("GET, HEAD")))
}

fn json_config() -> JsonConfig {
    JsonConfig::default().limit(MAX_JSON_BYTES).error_handler(|error, _| ApiError::from(error).into())
}

async fn not_found() -> HttpResponse {
    Problem::new(StatusCode::NOT_FOUND).response()
}

async fn only(methods: &'static str) -> HttpResponse {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED).header(ALLOW, HeaderValue::from_static(methods)).response()
}
