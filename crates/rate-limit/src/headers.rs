//! Header fields that tell clients about their limits, and `Retry-After`.
//!
//! Only names and values: nothing here knows HTTP. Policies in shadow mode are not told of.

use std::{fmt::Write as _, time::Duration};

use crate::{
    decision::{Decision, PolicyState},
    policies::Policies,
    request::Request,
    rule::Rule,
};

/// How clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// draft-ietf-httpapi-ratelimit-headers-10, and in the same words -08 and -09: every policy by its name.
    Draft10,
    /// draft -07: `RateLimit: limit=…, remaining=…, reset=…` of the policy that is nearest to its limit.
    Draft7,
    /// draft -06: three fields of the policy that is nearest to its limit.
    Draft6,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`, in Unix seconds, of the policy that is nearest to its limit.
    Legacy,
}

/// A field's name in lower case, and its value.
pub type Field = (&'static str, String);

/// The names of all fields of `form`, for `Access-Control-Expose-Headers`.
pub fn names(form: Form) -> &'static [&'static str] {
    match form {
        Form::Draft10 | Form::Draft7 => &["ratelimit-policy", "ratelimit"],
        Form::Draft6 => &["ratelimit-policy", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
        Form::Legacy => &["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
    }
}

/// A request and what was decided about it.
pub type Asked = (Request, Decision);

/// The fields of `form` about all that was `asked` for one answer; none when no policy applies that may be told of. `now` is
/// the time since the Unix epoch.
pub fn fields(policies: &Policies, asked: &[Asked], form: Form, now: Duration) -> Vec<Field> {
    if form == Form::Draft10 {
        let policy = policy_items(policies, asked).map(|value| ("ratelimit-policy", value));
        let left = items_left(policies, asked).map(|value| ("ratelimit", value));
        return policy.into_iter().chain(left).collect();
    }
    let Some(state) = tightest(asked) else { return Vec::new() };
    let (limit, remaining, reset) = (state.limit, state.remaining, state.reset.unwrap_or_default());
    let seconds = whole_seconds(reset);
    match form {
        Form::Legacy => vec![
            ("x-ratelimit-limit", limit.to_string()),
            ("x-ratelimit-remaining", remaining.to_string()),
            ("x-ratelimit-reset", whole_seconds(now + reset).to_string()),
        ],
        Form::Draft6 => vec![
            ("ratelimit-policy", quota_items(policies, asked)),
            ("ratelimit-limit", limit.to_string()),
            ("ratelimit-remaining", remaining.to_string()),
            ("ratelimit-reset", seconds.to_string()),
        ],
        _ => vec![
            ("ratelimit-policy", quota_items(policies, asked)),
            ("ratelimit", format!("limit={limit}, remaining={remaining}, reset={seconds}")),
        ],
    }
}

/// The value of `RateLimit-Policy` in draft -10: quota and window of every policy, and the unit where it is not requests.
fn policy_items(policies: &Policies, asked: &[Asked]) -> Option<String> {
    let mut value = String::with_capacity(96);
    for rule in told(policies, asked) {
        let name = policies.name(rule.policy);
        let _ = write!(value, "{}\"{name}\";q={}", separator(&value), rule.limit);
        if rule.is_concurrency() {
            value.push_str(";qu=\"concurrent-requests\"");
        } else {
            let _ = write!(value, ";w={}", whole_seconds(Duration::from_micros(rule.window_us)).max(1));
        }
    }
    (!value.is_empty()).then_some(value)
}

/// The value of `RateLimit` in draft -10: for each known policy the requests left and the seconds until more are to be had.
/// `None` when no policy applies.
fn items_left(policies: &Policies, asked: &[Asked]) -> Option<String> {
    let mut value = String::with_capacity(96);
    for state in states(asked) {
        // Writing to a string cannot fail.
        let _ = write!(value, "{}\"{}\";r={}", separator(&value), policies.name(state.policy), state.remaining);
        if let Some(reset) = state.reset {
            let _ = write!(value, ";t={}", whole_seconds(reset));
        }
    }
    (!value.is_empty()).then_some(value)
}

/// The value of `Retry-After`: whole seconds, at least 1 and never before the request could pass. `None` when it was let
/// through, or can never pass.
pub fn retry_after(decision: &Decision) -> Option<u64> {
    decision.retry_after().map(|wait| whole_seconds(wait).max(1))
}

/// The names of the policies because of which the request was denied, for `violated-policies`.
pub fn violated<'a>(policies: &'a Policies, decision: &'a Decision) -> impl Iterator<Item = &'a str> {
    decision.violated().map(|state| policies.name(state.policy))
}

/// The policies of -06 and -07, which have no names.
fn quota_items(policies: &Policies, asked: &[Asked]) -> String {
    let mut value = String::new();
    for rule in told(policies, asked).filter(|rule| !rule.is_concurrency()) {
        let seconds = whole_seconds(Duration::from_micros(rule.window_us)).max(1);
        let _ = write!(value, "{}{};w={seconds}", separator(&value), rule.limit);
    }
    value
}

fn told<'a>(policies: &'a Policies, asked: &'a [Asked]) -> impl Iterator<Item = &'a Rule> {
    let parts = asked.iter().flat_map(|(request, _)| &request.parts);
    parts.map(|part| policies.rule(part.rule)).filter(|rule| !rule.shadow)
}

fn states(asked: &[Asked]) -> impl Iterator<Item = &PolicyState> {
    asked.iter().flat_map(|(_, decision)| decision.policies()).filter(|state| !state.shadow)
}

/// The policy that denies, or else the one with the smallest part of its limit left.
fn tightest(asked: &[Asked]) -> Option<&PolicyState> {
    let part_left = |state: &PolicyState| state.remaining as f64 / state.limit.max(1) as f64;
    states(asked)
        .min_by(|one, other| other.violated.cmp(&one.violated).then(part_left(one).total_cmp(&part_left(other))))
}

fn separator(written: &str) -> &'static str {
    if written.is_empty() { "" } else { ", " }
}

/// Rounded up: a client that comes back then must not be early.
pub fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
