//! Who is asking: the bearer token of a request, verified.

use std::future::{Ready, ready};
use std::rc::Rc;
use std::time::SystemTime;

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest};
use auth::{Identity, Role};

use crate::error::ApiError;
use crate::state::AppState;

/// A request whose token is valid. Extracting it answers 401 to all others, before any body is read.
pub(crate) struct Bearer(Identity);

impl Bearer {
    /// Whoever may change products.
    pub(crate) fn vendor_or_admin(self) -> Result<Identity, ApiError> {
        match self.0.role {
            Role::Vendor | Role::Admin => Ok(self.0),
            Role::Retailer => Err(ApiError::Forbidden),
        }
    }
}

impl FromRequest for Bearer {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(identity(request).map(|identity| Self((*identity).clone())).ok_or(ApiError::Unauthenticated))
    }
}

/// Whoever a request comes from, if its token says so; it is verified once.
pub(crate) fn identity(request: &HttpRequest) -> Option<Rc<Identity>> {
    if let Some(Verified(identity)) = request.extensions().get() {
        return identity.clone();
    }
    let identity = verify(request).map(Rc::new);
    request.extensions_mut().insert(Verified(identity.clone()));
    identity
}

/// What became of a request's token.
struct Verified(Option<Rc<Identity>>);

fn verify(request: &HttpRequest) -> Option<Identity> {
    let state = request.app_data::<Data<AppState>>().expect("every application is built with its state");
    let header = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
    let (scheme, token) = header.and_then(|header| header.split_once(' '))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    match state.keys.verify(token.trim(), SystemTime::now()) {
        Ok(claims) => Some(claims.identity),
        Err(error) => {
            tracing::debug!(%error, "Token refused");
            None
        }
    }
}
