//! What is left for one client, policy by policy.

use std::time::Duration;

use redis_store::Error;
use serde_json::{Value, json};

use super::{Found, SCHEMA, Who};
use crate::verbs::table::{columns, duration};

/// How one client stands.
pub(super) struct Standing(Vec<Row>);

struct Row {
    policy: String,
    limit: u64,
    remaining: u64,
    /// Until more is to be had; `None`: never.
    reset: Option<Duration>,
    /// For how long still.
    blocked: Option<Duration>,
}

/// Asks Redis, and counts nothing.
pub(super) async fn of(found: &Found) -> Result<Standing, Error> {
    let states = found.limiter.peek(&found.request).await?;
    let blocked = found.limiter.blocked(&found.request).await?;
    let row = |state: &rate_limit::PolicyState| Row {
        policy: found.limiter.policies().name(state.policy).to_owned(),
        limit: state.limit,
        remaining: state.remaining,
        reset: state.reset,
        blocked: blocked.iter().find(|(policy, _)| *policy == state.policy).map(|(_, left)| *left),
    };
    Ok(Standing(states.iter().map(row).collect()))
}

impl Standing {
    /// A line for each policy, or one JSON document.
    pub(super) fn text(&self, who: &Who, as_json: bool) -> String {
        if as_json {
            let policies: Vec<_> = self.0.iter().map(Row::document).collect();
            return json!({ "schema": SCHEMA, "key": who.to_string(), "policies": policies }).to_string();
        }
        let head = ["POLICY", "LIMIT", "REMAINING", "RESETS IN", "BLOCKED FOR"].map(str::to_owned);
        let rows: Vec<_> = self.0.iter().map(Row::cells).collect();
        columns(&[vec![head], rows].concat())
    }
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let reset = self.reset.map_or_else(|| "never".to_owned(), duration);
        let blocked = self.blocked.map_or_else(|| "-".to_owned(), duration);
        [self.policy.clone(), self.limit.to_string(), self.remaining.to_string(), reset, blocked]
    }

    fn document(&self) -> Value {
        json!({
            "name": self.policy,
            "limit": self.limit,
            "remaining": self.remaining,
            "reset_seconds": self.reset.map(|reset| reset.as_secs_f64()),
            "blocked_seconds": self.blocked.map(|left| left.as_secs_f64()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_and_an_end_that_never_comes_are_told() {
        let row =
            |policy: &str, reset, blocked| Row { policy: policy.to_owned(), limit: 5, remaining: 0, reset, blocked };
        let minute = Some(Duration::from_secs(60));
        let standing = Standing(vec![row("a", minute, minute), row("b", None, None)]);
        let who = Who::User("u".to_owned());
        let expected = "\
POLICY  LIMIT  REMAINING  RESETS IN  BLOCKED FOR
a       5      0          1m         1m
b       5      0          never      -";
        assert_eq!(standing.text(&who, false), expected);
        let document: Value = serde_json::from_str(&standing.text(&who, true)).unwrap();
        assert_eq!((&document["key"], &document["schema"]), (&json!("user:u"), &json!(SCHEMA)));
        assert_eq!(document["policies"][0]["blocked_seconds"], 60.0);
        assert_eq!(document["policies"][1]["reset_seconds"], Value::Null);
    }
}
