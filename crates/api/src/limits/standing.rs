//! What has been asked about one request, and what a handler may do about it.

use std::cell::RefCell;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::rc::Rc;

use actix_web::dev::Payload;
use actix_web::web::Data;
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest};
use rate_limit::headers::Asked;
use rate_limit::{Attempt, Decision, Limiter, PolicySet, Request};

use super::Limits;
use crate::state::AppState;

/// Everything that was asked about one request; lives with it. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Standing(pub(super) Rc<RefCell<Book>>);

#[derive(Default)]
pub(super) struct Book {
    asked: Vec<Asked>,
    counted: PolicySet,
    /// Units that the handler found out about; they count if the answer does.
    charged: u32,
    /// An attempt to log in whose end is not known yet.
    pub(super) login: Option<Attempt>,
}

impl Standing {
    /// That of `request`, which it keeps.
    pub(crate) fn of(request: &HttpRequest) -> Self {
        if let Some(standing) = request.extensions().get::<Self>() {
            return standing.clone();
        }
        let standing = Self::default();
        request.extensions_mut().insert(standing.clone());
        standing
    }

    /// That of a request that is answered now; `None` when no limit was asked about it.
    pub(crate) fn of_answered(request: &HttpRequest) -> Option<Self> {
        request.extensions().get::<Self>().cloned()
    }

    /// The policies under which the request has been counted: none counts it twice.
    pub(crate) fn counted(&self) -> PolicySet {
        self.0.borrow().counted
    }

    pub(crate) fn add(&self, set: PolicySet, request: Request, decision: Decision) {
        let mut book = self.0.borrow_mut();
        book.counted = book.counted.or(set);
        book.asked.push((request, decision));
    }

    pub(crate) fn with_asked<R>(&self, look: impl FnOnce(&[Asked]) -> R) -> R {
        look(&self.0.borrow().asked)
    }

    /// Whether anything is held until the answer has gone out.
    pub(crate) fn holds(&self) -> bool {
        self.with_asked(|asked| asked.iter().any(|(_, decision)| decision.holds()))
    }

    /// Gives back all that was counted: what a later policy denies, the earlier ones must not pay for.
    pub(crate) fn refund(&self, limiter: &Limiter) {
        self.with_asked(|asked| asked.iter().for_each(|(_, decision)| limiter.refund(decision)));
    }

    /// Tells the limiter how the request was answered.
    pub(crate) fn conclude(&self, limiter: &Limiter, succeeded: bool) {
        let charged = std::mem::take(&mut self.0.borrow_mut().charged);
        self.with_asked(|asked| {
            for (_, decision) in asked {
                limiter.answered(decision, succeeded, charged);
            }
        });
    }
}

/// What a handler can do about the limits of its request.
pub struct RateLimit {
    pub(super) limits: Limits,
    pub(super) standing: Standing,
    pub(super) address: IpAddr,
}

impl RateLimit {
    /// What was decided about this request so far.
    pub fn decisions(&self) -> Vec<Decision> {
        self.standing.with_asked(|asked| asked.iter().map(|(_, decision)| decision.clone()).collect())
    }

    /// Counts so many units more, if the answer counts: what a request costs is often known only when it is done.
    pub fn charge(&self, units: u32) {
        let mut book = self.standing.0.borrow_mut();
        book.charged = book.charged.saturating_add(units);
    }

    /// Counts so many units more at once, whatever the answer is.
    pub fn penalize(&self, units: u32) {
        let limiter = self.limits.limiter();
        self.standing.with_asked(|asked| asked.iter().for_each(|(_, decision)| limiter.charge(decision, units)));
    }

    /// Gives back what this request was counted for.
    pub fn refund(&self) {
        self.standing.refund(self.limits.limiter());
    }
}

impl FromRequest for RateLimit {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<Data<AppState>>().expect("every application is built with its state");
        ready(Ok(Self {
            limits: state.limits.clone(),
            standing: Standing::of(request),
            address: edge::client_address(request),
        }))
    }
}
