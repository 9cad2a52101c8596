//! The first thing behind the edge: limits, before routing or any other work, and the headers that every answer has.

use std::future::{Ready, ready};
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{Error, HttpResponse};
use edge::Problem;
use futures_util::future::LocalBoxFuture;
use rate_limit::PolicySet;

use crate::health;
use crate::limits::{Holding, Limits, Standing};
use crate::state::AppState;

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Wraps the whole service.
pub(crate) struct Front {
    limits: Limits,
}

impl Front {
    pub(crate) fn new(state: &AppState) -> Self {
        Self { limits: state.limits.clone() }
    }
}

impl<S, B> Transform<S, ServiceRequest> for Front
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<Holding<B>>>;
    type Error = Error;
    type Transform = FrontService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(FrontService { service: Rc::new(service), limits: self.limits.clone() }))
    }
}

/// The wrapped service.
pub(crate) struct FrontService<S> {
    service: Rc<S>,
    limits: Limits,
}

impl<S, B> Service<ServiceRequest> for FrontService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<Holding<B>>>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.service.poll_ready(context)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let (service, limits) = (Rc::clone(&self.service), self.limits.clone());
        Box::pin(async move {
            let mut response = match admitted(&limits, &request).await {
                Ok(()) => service.call(request).await?.map_body(|_, body| EitherBody::left(Holding::nothing(body))),
                Err(refusal) => request.into_response(refusal).map_into_right_body(),
            };
            // Here, because guards further in may have counted it too.
            let standing = Standing::of_answered(response.request());
            if let Some(standing) = standing {
                let (status, request) = (response.status(), response.request().clone());
                limits.conclude(&standing, &request, response.headers_mut(), status);
                response = response.map_body(|_, body| held(body, standing));
            }
            secure(response.headers_mut());
            Ok(response)
        })
    }
}

/// Whether the request may go on, or what it is answered. Health checks always may.
async fn admitted(limits: &Limits, request: &ServiceRequest) -> Result<(), HttpResponse> {
    // The path as the router reads it: another spelling of the same route must not be a way around its limit.
    let path = request.match_info().as_str();
    if health::PATHS.contains(&path) {
        return Ok(());
    }
    let address = edge::client_address(request.request());
    if limits.is_denied(address) {
        return Err(Problem::new(StatusCode::FORBIDDEN).response());
    }
    let set = limits.matching(request.method().as_str(), path, address);
    if set == PolicySet::default() { Ok(()) } else { limits.admit(request.request(), address, set).await }
}

fn held<B, R>(body: EitherBody<Holding<B>, R>, standing: Standing) -> EitherBody<Holding<B>, R> {
    match body {
        EitherBody::Left { body } => EitherBody::left(body.until_sent(standing)),
        refusal => refusal,
    }
}

/// An API is no page: nothing may run it, frame it, guess its type or take it into another origin.
fn secure(response: &mut HeaderMap) {
    response.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
}
