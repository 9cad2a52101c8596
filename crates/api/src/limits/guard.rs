//! A limit on one scope or route, by the name of its policy.

use std::future::{Ready, ready};
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::Error;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::web::Data;
use futures_util::future::LocalBoxFuture;
use rate_limit::PolicySet;

use crate::state::AppState;

/// Wraps a scope or a route: `.wrap(Limited::by("exports"))`. A policy with `paths = []` applies nowhere else. A request that
/// the policy has counted already is not counted again, and a name that is not configured limits nothing.
pub struct Limited {
    policy: &'static str,
}

impl Limited {
    /// Limits by the policy of this name.
    pub const fn by(policy: &'static str) -> Self {
        Self { policy }
    }
}

impl<S, B> Transform<S, ServiceRequest> for Limited
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = LimitedService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(LimitedService { service: Rc::new(service), policy: self.policy }))
    }
}

/// The wrapped service.
pub struct LimitedService<S> {
    service: Rc<S>,
    policy: &'static str,
}

impl<S, B> Service<ServiceRequest> for LimitedService<S>
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
        let (service, policy) = (Rc::clone(&self.service), self.policy);
        Box::pin(async move {
            let limits = request.app_data::<Data<AppState>>().map(|state| state.limits.clone());
            if let Some(limits) = limits {
                let address = edge::client_address(request.request());
                let is_exempt = limits.is_exempt(address);
                let named = limits.limiter().policies().named(policy).filter(|_| !is_exempt);
                let set: PolicySet = named.unwrap_or_default();
                if let Err(refusal) = limits.admit(request.request(), address, set).await {
                    return Ok(request.into_response(refusal).map_into_right_body());
                }
            }
            Ok(service.call(request).await?.map_into_left_body())
        })
    }
}
