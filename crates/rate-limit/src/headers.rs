//! Values of the header fields of draft-ietf-httpapi-ratelimit-headers-10, and `Retry-After`.
//!
//! Only strings: nothing here knows HTTP.

use std::{fmt::Write as _, time::Duration};

use crate::{
    decision::Decision,
    policies::{Policies, PolicySet},
};

/// The value of `RateLimit`: for each known policy the requests left and the seconds until more are to be had. `None`
/// when no policy applies.
pub fn rate_limit(policies: &Policies, decision: &Decision) -> Option<String> {
    if decision.policies().is_empty() {
        return None;
    }
    let mut value = String::with_capacity(48 * decision.policies().len());
    for state in decision.policies() {
        let comma = if value.is_empty() { "" } else { ", " };
        let (name, seconds) = (policies.name(state.policy), whole_seconds(state.reset));
        // Writing to a string cannot fail.
        let _ = write!(value, "{comma}\"{name}\";r={};t={seconds}", state.remaining);
    }
    Some(value)
}

/// The value of `Retry-After`: whole seconds, at least 1 and never before the window ends. `None` when the request was
/// let through.
pub fn retry_after(decision: &Decision) -> Option<u64> {
    decision.retry_after().map(|wait| whole_seconds(wait).max(1))
}

/// The names of the policies because of which the request was denied, for `violated-policies`.
pub fn violated<'a>(policies: &'a Policies, decision: &'a Decision) -> impl Iterator<Item = &'a str> {
    decision.violated().map(|state| policies.name(state.policy))
}

/// The value of `RateLimit-Policy`; kept by [`Policies::header`].
pub(crate) fn policies(policies: &Policies, set: PolicySet) -> String {
    let mut value = String::new();
    for number in set.iter() {
        let policy = policies.get(number);
        let comma = if value.is_empty() { "" } else { ", " };
        let seconds = whole_seconds(policy.window).max(1);
        let _ = write!(value, "{comma}\"{}\";q={};w={seconds}", policy.name, policy.limit);
    }
    value
}

/// Rounded up: a client that comes back then must not be early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
