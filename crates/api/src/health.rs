//! `/livez`, `/readyz`, `/up` and `/health`: never limited, never authenticated.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use actix_web::web::{Data, Query};
use edge::{DrainKind, Phase};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::dependencies::Works;
use crate::state::AppState;

/// However many monitors ask, the database is asked no more often than this.
const DATABASE_AGE: Duration = Duration::from_secs(1);

/// The paths of this module, which limits do not touch.
pub(crate) const PATHS: [&str; 4] = ["/livez", "/readyz", "/up", "/health"];

/// 200 while the loop turns.
pub(crate) async fn livez() -> HttpResponse {
    plain(HttpResponse::Ok().body("ok\n"))
}

#[derive(Deserialize)]
pub(crate) struct ReadyParameters {
    verbose: Option<String>,
}

/// 503 from the moment a stop begins. A reload does not count: somebody else serves on the same socket. Redis and the database do
/// not count either: without them this worker still does what it can, and another one would be no better off.
pub(crate) async fn readyz(state: Data<AppState>, parameters: Query<ReadyParameters>) -> HttpResponse {
    let stopping = *state.phase.borrow() == Phase::Drain(DrainKind::Stop);
    let mut answer = if stopping { HttpResponse::ServiceUnavailable() } else { HttpResponse::Ok() };
    let word = if stopping { "stopping" } else { "ready" };
    if parameters.verbose.is_none() {
        return plain(answer.body(format!("{word}\n")));
    }
    let redis = connected(state.dependencies.is_connected());
    plain(answer.body(format!("{word}\nworker: w{}\nredis: {redis}\n", state.worker_id)))
}

/// What works, for monitors and people (draft-inadarei-api-health-check-06).
pub(crate) async fn health(state: Data<AppState>) -> HttpResponse {
    let Works { redis, cache, database } = state.dependencies.look(DATABASE_AGE).await;
    let status = match (database, redis && cache) {
        (false, _) => "fail",
        (true, false) => "warn",
        (true, true) => "pass",
    };
    let body = json!({
        "status": status,
        "version": state.version,
        "worker": format!("w{}", state.worker_id),
        "checks": {
            "database": check(database, "reads answer from the cache while it holds, writes answer 503"),
            "redis:state": check(redis, "each worker enforces its share of every limit"),
            "redis:cache": check(cache, "each worker caches for itself"),
        },
    });
    let mut answer = if database { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    let mut response = answer.body(body.to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/health+json"));
    uncached(response)
}

fn check(works: bool, otherwise: &str) -> Value {
    if works { json!({"status": "pass"}) } else { json!({"status": "warn", "output": otherwise}) }
}

fn connected(is: bool) -> &'static str {
    if is { "connected" } else { "away" }
}

fn plain(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    uncached(response)
}

fn uncached(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
