//! What routes say about their limits, over a service with a real Redis behind it.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::Method;
use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
use actix_web::web::{self, Data, Path};
use actix_web::{App, Error};
use actix_web::{HttpResponse, HttpResponseBuilder};
use edge::Phase;
use rate_limit::{Config, Count, LoginConfig, OnOutage, Policy, headers::Form};
use redis_store::{RedisStore, Role, Url};
use serde_json::Value;
use telemetry::Registry;
use test_support::{Redis, eventually_async, unique_prefix};
use tokio::sync::watch;

use super::*;
use crate::front::Front;
use crate::state::AppState;
use crate::{Catalogue, Dependencies};

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(30);

/// A limit on what names it.
fn policy(name: &str, limit: u64) -> Policy {
    Policy { paths: Some(Vec::new()), ..Policy::new(name, limit, HOUR) }
}

/// Everything a worker has, with `policies`.
async fn state(policies: Vec<Policy>, redis: &Redis) -> AppState {
    let registry = Registry::new();
    let url = Url::parse(&redis.unix_url()).unwrap();
    let settings = redis_store::Config { url, command_timeout: Duration::from_secs(5) };
    let redis = RedisStore::connect(&settings, Role::State);
    let limits = Config { timeout: Duration::from_secs(5), ..Config::new(&unique_prefix(), [7; 16], policies) };
    let limiter = Limiter::new(&limits, &redis, &registry).unwrap();
    let login = LoginConfig { timeout: Duration::from_secs(1), ..LoginConfig::new(&limits.prefix, limits.key) };
    let login = LoginGuard::new(login, &redis, &registry);
    let directory = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", directory.path().join("database").display());
    let database = store::Config { url: database, max_connections: 1 };
    let store = store::Store::connect(&database, &registry).await.unwrap();
    let caches = cache::Caches::new(cache::Config::default(), redis.clone(), &registry);
    eventually_async(PATIENCE, async || limiter.is_exact()).await;
    AppState {
        catalogue: Catalogue::new(store.clone(), &caches),
        dependencies: Dependencies::new(store, redis.clone(), redis, limiter.clone()),
        limits: Limits::new(limiter, login, Settings { forms: vec![Form::Draft10], ..Settings::default() }),
        keys: auth::Keys::load_or_create(&directory.path().join("key")).unwrap(),
        phase: watch::channel(Phase::Serve).1,
        worker_id: 0,
        version: "1.0.0",
    }
}

/// A service with one route for each thing that a handler can do.
async fn service(
    state: &AppState,
) -> impl Service<actix_http::Request, Response = ServiceResponse<impl MessageBody>, Error = Error> {
    let exports = web::scope("/exports").wrap(Limited::by("exports"));
    let twice = web::scope("/twice").wrap(Limited::by("exports")).wrap(Limited::by("exports"));
    let unheard_of = web::scope("/free").wrap(Limited::by("unheard-of"));
    let pages = || web::resource("{status}").to(page);
    let app = App::new()
        .wrap(Front::new(state))
        .app_data(Data::new(state.clone()))
        .service(exports.service(pages()))
        .service(twice.service(pages()))
        .service(unheard_of.service(pages()))
        .route("/charged/{units}/{status}", web::get().to(charged))
        .route("/penalized/{units}/{status}", web::get().to(penalized))
        .route("/refunded", web::get().to(refunded))
        .route("/login/{account}/{password}", web::get().to(log_in));
    init_service(app).await
}

fn answer(status: u16) -> HttpResponse {
    HttpResponseBuilder::new(StatusCode::from_u16(status).unwrap()).finish()
}

async fn page(status: Path<u16>) -> HttpResponse {
    answer(*status)
}

async fn charged(limit: RateLimit, path: Path<(u32, u16)>) -> HttpResponse {
    limit.charge(path.0);
    answer(path.1)
}

async fn penalized(limit: RateLimit, path: Path<(u32, u16)>) -> HttpResponse {
    limit.penalize(path.0);
    answer(path.1)
}

async fn refunded(limit: RateLimit) -> HttpResponse {
    limit.refund();
    answer(200)
}

async fn log_in(limit: RateLimit, path: Path<(String, String)>) -> Result<HttpResponse, Error> {
    let (account, password) = path.into_inner();
    limit.login(&account).await?;
    Ok(match password.as_str() {
        "right" => {
            limit.login_succeeded().await;
            answer(200)
        }
        "broken" => {
            limit.login_withdrawn().await;
            answer(500)
        }
        _ => {
            limit.login_failed();
            answer(401)
        }
    })
}

async fn get<S, B>(service: &S, path: &str) -> ServiceResponse<B>
where
    S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    let peer: SocketAddr = "192.0.2.1:1000".parse().unwrap();
    call_service(service, TestRequest::with_uri(path).method(Method::GET).peer_addr(peer).to_request()).await
}

fn left<B>(response: &ServiceResponse<B>) -> String {
    let header = response.headers().get("ratelimit").map(|header| header.to_str().unwrap());
    header.and_then(|header| header.split(';').nth(1)).unwrap_or_default().to_owned()
}

/// Asks until so much is left: what is told after the answer is settled soon.
async fn until_left<S, B>(service: &S, path: &str, expected: &str)
where
    S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    let is_left = async || left(&get(service, path).await) == expected;
    eventually_async(PATIENCE, is_left).await;
}

#[tokio::test]
async fn a_policy_without_paths_limits_the_scope_that_names_it_and_nothing_else() {
    let state = state(vec![policy("exports", 2)], Redis::shared()).await;
    let service = service(&state).await;
    assert_eq!(left(&get(&service, "/exports/200").await), "r=1");
    // A handler's failure counts like a success, and a request that two guards count counts once.
    assert_eq!(left(&get(&service, "/twice/500").await), "r=0");
    let denied = get(&service, "/exports/200").await;
    assert_eq!(denied.status(), StatusCode::TOO_MANY_REQUESTS);
    let problem: Value = read_body_json(denied).await;
    assert_eq!(problem["violated-policies"], serde_json::json!(["exports"]));
    for path in ["/free/200", "/refunded"] {
        let free = get(&service, path).await;
        assert_eq!((free.status(), left(&free).as_str()), (StatusCode::OK, ""), "{path}");
    }
}

#[tokio::test]
async fn handlers_charge_penalize_and_refund() {
    let everywhere = Policy { paths: None, limit: 100, count: Count::Success, ..policy("all", 100) };
    let state = state(vec![everywhere], Redis::shared()).await;
    let service = service(&state).await;
    assert_eq!(left(&get(&service, "/charged/9/200").await), "r=99");
    // Asking for this counts nothing.
    until_left(&service, "/refunded", "r=89").await;
    get(&service, "/charged/20/500").await;
    get(&service, "/penalized/5/500").await;
    until_left(&service, "/refunded", "r=84").await;
    // Beyond the limit: the next one is denied.
    get(&service, "/charged/200/200").await;
    let is_denied = async || get(&service, "/refunded").await.status() == StatusCode::TOO_MANY_REQUESTS;
    eventually_async(PATIENCE, is_denied).await;
}

#[tokio::test]
async fn five_wrong_passwords_in_a_row_block_the_right_one_too() {
    let state = state(Vec::new(), Redis::shared()).await;
    let service = service(&state).await;
    for password in ["wrong", "wrong", "wrong", "wrong", "right", "broken", "broken"] {
        get(&service, &format!("/login/owner/{password}")).await;
    }
    for _ in 0..5 {
        assert_eq!(get(&service, "/login/owner/wrong").await.status(), StatusCode::UNAUTHORIZED);
    }
    let blocked = get(&service, "/login/OWNER/right").await;
    assert_eq!(blocked.status(), StatusCode::TOO_MANY_REQUESTS);
    let retry_after: u64 = blocked.headers().get("retry-after").unwrap().to_str().unwrap().parse().unwrap();
    assert!((50..=60).contains(&retry_after), "{retry_after}");
    assert_eq!(blocked.headers().get("cache-control").unwrap(), "no-store");
    let problem: Value = read_body_json(blocked).await;
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#abnormal-usage-detected");
}

#[tokio::test]
async fn nobody_logs_in_uncounted_when_redis_is_away() {
    let redis = Redis::start();
    let state = state(Vec::new(), &redis).await;
    let service = service(&state).await;
    redis.kill();
    let unavailable = async || get(&service, "/login/owner/right").await;
    let answer = unavailable().await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn without_redis_a_policy_is_enforced_by_parts_or_open_or_closed_and_closed_is_no_denial() {
    let redis = Redis::start();
    let of = |name: &str, on_outage| Policy { on_outage, ..policy(name, 2) };
    let policies = vec![of("exports", OnOutage::Closed), of("open", OnOutage::Open), of("local", OnOutage::Local)];
    let state = state(policies, &redis).await;
    let app = App::new()
        .wrap(Front::new(&state))
        .app_data(Data::new(state.clone()))
        .service(web::resource("/closed/{status}").wrap(Limited::by("exports")).to(page))
        .service(web::resource("/open/{status}").wrap(Limited::by("open")).to(page))
        .service(web::resource("/local/{status}").wrap(Limited::by("local")).to(page));
    let service = init_service(app).await;
    assert_eq!(left(&get(&service, "/closed/200").await), "r=1");
    redis.kill();
    eventually_async(PATIENCE, async || !state.limits.limiter().is_exact()).await;
    let closed = get(&service, "/closed/200").await;
    assert_eq!(closed.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(closed.headers().get("retry-after").unwrap(), "1");
    let problem: Value = read_body_json(closed).await;
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity");
    for _ in 0..5 {
        let open = get(&service, "/open/200").await;
        assert_eq!((open.status(), left(&open).as_str()), (StatusCode::OK, ""));
    }
    let local =
        [get(&service, "/local/200").await, get(&service, "/local/200").await, get(&service, "/local/200").await];
    assert_eq!(local.map(|answer| answer.status().as_u16()), [200, 200, 429]);
}
