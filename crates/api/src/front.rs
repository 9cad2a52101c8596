//! The first thing behind the edge: the rate limit by address, before routing or any other work, and the headers that every answer has.

use std::future::{Ready, ready};
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{Error, HttpResponse};
use edge::Problem;
use futures_util::future::LocalBoxFuture;
use rate_limit::{Decision, Limiter, Policies, PolicySet, headers};

use crate::health;
use crate::state::AppState;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Wraps the whole service.
pub(crate) struct Front {
    limiter: Limiter,
    announces_limits: bool,
}

impl Front {
    pub(crate) fn new(state: &AppState) -> Self {
        Self { limiter: state.limiter.clone(), announces_limits: state.announces_limits }
    }
}

impl<S, B> Transform<S, ServiceRequest> for Front
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = FrontService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(FrontService {
            service: Rc::new(service),
            limiter: self.limiter.clone(),
            announces_limits: self.announces_limits,
        }))
    }
}

/// The wrapped service.
pub(crate) struct FrontService<S> {
    service: Rc<S>,
    limiter: Limiter,
    announces_limits: bool,
}

impl<S, B> Service<ServiceRequest> for FrontService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.service.poll_ready(context)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let service = Rc::clone(&self.service);
        let limiter = self.limiter.clone();
        let announces_limits = self.announces_limits;
        Box::pin(async move {
            let policies = matching(&limiter, &request);
            if policies.is_empty() {
                let mut response = service.call(request).await?.map_into_left_body();
                secure(response.headers_mut());
                return Ok(response);
            }
            let decision = limiter.check(policies, edge::client_address(request.request())).await;
            let mut response = if decision.is_allowed() {
                service.call(request).await?.map_into_left_body()
            } else {
                let refused = refusal(limiter.policies(), &decision).map_into_right_body();
                request.into_response(refused)
            };
            secure(response.headers_mut());
            if announces_limits {
                announce(response.headers_mut(), limiter.policies(), policies, &decision);
            }
            Ok(response)
        })
    }
}

/// The policies that are about this request. Health checks are never limited.
fn matching(limiter: &Limiter, request: &ServiceRequest) -> PolicySet {
    // The path as the router reads it: another spelling of the same route must not be a way around its limit.
    let path = request.match_info().as_str();
    if health::PATHS.contains(&path) {
        return PolicySet::default();
    }
    limiter.policies().matching(request.method().as_str(), path)
}

fn refusal(policies: &Policies, decision: &Decision) -> HttpResponse {
    let violated: Vec<&str> = headers::violated(policies, decision).collect();
    let seconds = headers::retry_after(decision).unwrap_or(1);
    Problem::new(StatusCode::TOO_MANY_REQUESTS)
        .kind("https://iana.org/assignments/http-problem-types#quota-exceeded")
        .title("Request cannot be satisfied as assigned quota has been exceeded")
        .with("violated-policies", violated)
        .header(RETRY_AFTER, HeaderValue::from(seconds))
        .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .response()
}

fn announce(response: &mut HeaderMap, policies: &Policies, set: PolicySet, decision: &Decision) {
    // Names are plain ASCII, which the limiter checked, so both are always headers' values.
    if let Ok(value) = HeaderValue::from_str(&policies.header(set)) {
        response.insert(RATE_LIMIT_POLICY, value);
    }
    if let Some(Ok(value)) = headers::rate_limit(policies, decision).map(HeaderValue::try_from) {
        response.insert(RATE_LIMIT, value);
    }
}

/// An API is no page: nothing may run it, frame it, guess its type or take it into another origin.
fn secure(response: &mut HeaderMap) {
    response.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
}
