//! Header fields that tell clients about their limits, and `Retry-After`.
//!
//! Only names and values: nothing here knows HTTP. Policies in shadow mode are not told of.

use std::time::Duration;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

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
pub type Field = (&'static str, Bytes);

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

/// The fields of `form` about all that was `asked` for one answer; none when no policy applies that may be told of. `now` gives
/// the time since the Unix epoch.
pub fn fields(
    policies: &Policies,
    asked: &[Asked],
    form: Form,
    now: impl FnOnce() -> Duration,
) -> SmallVec<[Field; 2]> {
    if form == Form::Draft10 {
        let policy = policy_items(policies, asked).map(|value| ("ratelimit-policy", value));
        let left = items_left(policies, asked).map(|value| ("ratelimit", value));
        return policy.into_iter().chain(left).collect();
    }
    let Some(state) = tightest(asked) else { return SmallVec::new() };
    let (limit, remaining, reset) = (state.limit, state.remaining, state.reset.unwrap_or_default());
    let seconds = whole_seconds(reset);
    match form {
        Form::Legacy => smallvec![
            ("x-ratelimit-limit", digits(limit)),
            ("x-ratelimit-remaining", digits(remaining)),
            ("x-ratelimit-reset", digits(whole_seconds(now() + reset))),
        ],
        Form::Draft6 => smallvec![
            ("ratelimit-policy", quota_items(policies, asked)),
            ("ratelimit-limit", digits(limit)),
            ("ratelimit-remaining", digits(remaining)),
            ("ratelimit-reset", digits(seconds)),
        ],
        _ => smallvec![
            ("ratelimit-policy", quota_items(policies, asked)),
            ("ratelimit", format!("limit={limit}, remaining={remaining}, reset={seconds}").into()),
        ],
    }
}

/// What `RateLimit-Policy` says of one rule in draft -10: quota and window, and the unit where it is not requests.
pub(crate) fn policy_item(name: &str, rule: &Rule) -> Bytes {
    let quota = rule.limit;
    let item = if rule.is_concurrency() {
        format!("\"{name}\";q={quota};qu=\"concurrent-requests\"")
    } else {
        format!("\"{name}\";q={quota};w={}", seconds_of(rule))
    };
    item.into()
}

/// The value of `RateLimit-Policy` in draft -10; `None` when no policy applies.
fn policy_items(policies: &Policies, asked: &[Asked]) -> Option<Bytes> {
    let items: SmallVec<[&Bytes; 4]> = told(policies, asked).map(|rule| policies.announcement(rule)).collect();
    match items.as_slice() {
        [] => None,
        [item] => Some((*item).clone()),
        items => Some(items.iter().map(|item| &item[..]).collect::<Vec<_>>().join(&b", "[..]).into()),
    }
}

/// The value of `RateLimit` in draft -10: for each known policy the requests left and the seconds until more are to be had.
/// `None` when no policy applies.
fn items_left(policies: &Policies, asked: &[Asked]) -> Option<Bytes> {
    let (mut value, mut number) = (Vec::with_capacity(96), itoa::Buffer::new());
    for state in states(asked) {
        value.extend_from_slice(if value.is_empty() { b"\"" } else { b", \"" });
        value.extend_from_slice(policies.name(state.policy).as_bytes());
        value.extend_from_slice(b"\";r=");
        value.extend_from_slice(number.format(state.remaining).as_bytes());
        if let Some(reset) = state.reset {
            value.extend_from_slice(b";t=");
            value.extend_from_slice(number.format(whole_seconds(reset)).as_bytes());
        }
    }
    (!value.is_empty()).then(|| value.into())
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
fn quota_items(policies: &Policies, asked: &[Asked]) -> Bytes {
    let rules = told(policies, asked).map(|rule| policies.rule(rule)).filter(|rule| !rule.is_concurrency());
    let items: Vec<String> = rules.map(|rule| format!("{};w={}", rule.limit, seconds_of(rule))).collect();
    items.join(", ").into()
}

fn told<'a>(policies: &'a Policies, asked: &'a [Asked]) -> impl Iterator<Item = u16> {
    let rules = asked.iter().flat_map(|(request, _)| &request.parts).map(|part| part.rule);
    rules.filter(|rule| !policies.rule(*rule).shadow)
}

fn seconds_of(rule: &Rule) -> u64 {
    whole_seconds(Duration::from_micros(rule.window_us)).max(1)
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

fn digits(number: u64) -> Bytes {
    number.to_string().into()
}

/// Rounded up: a client that comes back then must not be early.
pub fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
