//! Limits over HTTP: who is asked about, how a refusal looks, and what every answer says about what is left.

mod guard;
mod holding;
mod login;
mod standing;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER,
};
use actix_web::{HttpRequest, HttpResponse};
use edge::{Networks, Problem};
use rate_limit::headers::{self, Form};
use rate_limit::{Decision, Limiter, LoginGuard, PolicySet, Subject, Verdict};

pub use self::guard::Limited;
pub(crate) use self::holding::Holding;
pub use self::standing::RateLimit;
pub(crate) use self::standing::Standing;
use crate::authentication;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// After this a request that Redis could not be asked about may be tried again, in seconds: by then somebody has asked.
const UNAVAILABLE_FOR: u64 = 1;

/// The limits of the whole service. Cheap to clone.
#[derive(Clone)]
pub struct Limits {
    inner: Arc<Inner>,
}

struct Inner {
    limiter: Limiter,
    login: LoginGuard,
    settings: Settings,
    /// `Access-Control-Expose-Headers`.
    exposed: HeaderValue,
}

/// What HTTP adds to the policies.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How clients are told of their limits; none if empty.
    pub forms: Vec<Form>,
    /// Addresses that are never limited, also if they are denied below.
    pub allow: Networks,
    /// Addresses that nothing is answered to but that they are denied.
    pub deny: Networks,
}

impl Limits {
    /// Puts together what limits requests.
    pub fn new(limiter: Limiter, login: LoginGuard, settings: Settings) -> Self {
        let names = settings.forms.iter().flat_map(|form| headers::names(*form)).copied();
        let exposed = names.chain(["retry-after"]).collect::<Vec<_>>().join(", ");
        let exposed = HeaderValue::from_str(&exposed).expect("names of headers are their values too");
        Self { inner: Arc::new(Inner { limiter, login, settings, exposed }) }
    }

    /// The limiter behind it.
    pub fn limiter(&self) -> &Limiter {
        &self.inner.limiter
    }

    /// The policies that are about this request; none for those who are never limited.
    pub(crate) fn matching(&self, method: &str, path: &str, address: IpAddr) -> PolicySet {
        if self.is_exempt(address) {
            return PolicySet::default();
        }
        self.inner.limiter.policies().matching(method, path)
    }

    /// Whether an address is never limited.
    pub(crate) fn is_exempt(&self, address: IpAddr) -> bool {
        self.inner.settings.allow.contain(address)
    }

    /// Whether nothing but this is answered to an address.
    pub(crate) fn is_denied(&self, address: IpAddr) -> bool {
        !self.is_exempt(address) && self.inner.settings.deny.contain(address)
    }

    /// Counts the request under each policy of `set`, and waits where a policy paces; or gives the answer that it gets
    /// instead. What concerns the user comes after what does not, which costs less.
    pub(crate) async fn admit(
        &self,
        request: &HttpRequest,
        address: IpAddr,
        set: PolicySet,
    ) -> Result<(), HttpResponse> {
        let policies = self.inner.limiter.policies();
        let standing = Standing::of(request);
        let set = set.without(standing.counted());
        let late = set.and(policies.after_authentication());
        self.count(request, address, &standing, set.without(late)).await?;
        self.count(request, address, &standing, late).await
    }

    /// Tells the client what is left, and the limiter how it was answered.
    pub(crate) fn conclude(
        &self,
        standing: &Standing,
        request: &HttpRequest,
        answer: &mut HeaderMap,
        status: StatusCode,
    ) {
        standing.conclude(&self.inner.limiter, status.as_u16() < 400);
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        standing.with_asked(|asked| {
            for form in &self.inner.settings.forms {
                for (name, value) in headers::fields(self.inner.limiter.policies(), asked, *form, now) {
                    // Names of policies are plain ASCII, which the limiter checked, so it always is a header's value.
                    if let Ok(value) = HeaderValue::from_maybe_shared(value) {
                        answer.insert(HeaderName::from_static(name), value);
                    }
                }
            }
        });
        if request.headers().contains_key(ORIGIN) {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.inner.exposed.clone());
        }
    }

    async fn count(
        &self,
        request: &HttpRequest,
        address: IpAddr,
        standing: &Standing,
        set: PolicySet,
    ) -> Result<(), HttpResponse> {
        if set.is_empty() {
            return Ok(());
        }
        let limiter = &self.inner.limiter;
        let asked = self.resolve(request, address, set);
        let decision = limiter.check(&asked).await;
        let (verdict, delay) = (decision.verdict(), decision.delay());
        let refusal = (verdict != Verdict::Allowed).then(|| self.refusal(&decision));
        if refusal.is_some() {
            standing.refund(limiter);
        }
        standing.add(set, asked, decision);
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        Ok(())
    }

    fn resolve(&self, request: &HttpRequest, address: IpAddr, set: PolicySet) -> rate_limit::Request {
        let limiter = &self.inner.limiter;
        let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
        let is_any_of = |others: PolicySet| !set.and(others).is_empty();
        let route = if is_any_of(limiter.policies().by_route()) { request.match_pattern() } else { None };
        let is_late = is_any_of(limiter.policies().after_authentication());
        let identity = if is_late { authentication::identity(request) } else { None };
        let subject = Subject {
            address,
            user: identity.as_deref().map(|identity| identity.subject.as_str()),
            tier: identity.as_deref().map(|identity| identity.role.name()),
            api_key: request.headers().get(API_KEY).map(HeaderValue::as_bytes),
            route: route.as_deref(),
            header: &header,
        };
        limiter.request(set, &subject)
    }

    fn refusal(&self, decision: &Decision) -> HttpResponse {
        if decision.verdict() == Verdict::Unavailable {
            return unavailable();
        }
        let policies = self.inner.limiter.policies();
        let violated: Vec<&str> = headers::violated(policies, decision).collect();
        let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS)
            .kind("https://iana.org/assignments/http-problem-types#quota-exceeded")
            .title("Request cannot be satisfied as assigned quota has been exceeded")
            .with("violated-policies", violated)
            .header(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = headers::retry_after(decision) {
            problem = problem.header(RETRY_AFTER, HeaderValue::from(seconds));
        }
        problem.response()
    }
}

/// Redis is away, and a policy lets nobody pass then: nobody has done too much.
pub(crate) fn unavailable() -> HttpResponse {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE)
        .kind("https://iana.org/assignments/http-problem-types#temporary-reduced-capacity")
        .title("Request cannot be satisfied due to temporary server capacity constraints")
        .header(RETRY_AFTER, HeaderValue::from(UNAVAILABLE_FOR))
        .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .response()
}

#[cfg(test)]
mod tests;
