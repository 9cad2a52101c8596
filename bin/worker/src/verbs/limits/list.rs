//! The policies, as the configuration has them: Redis is not asked.

use config::{Policy, RateLimit};
use serde_json::{Value, json};

use super::SCHEMA;
use crate::verbs::table::{columns, duration};

/// All policies: a line for each, or one JSON document.
pub(super) fn text(limits: &RateLimit, as_json: bool) -> String {
    if as_json {
        let policies: Vec<_> = limits.policies.iter().map(|policy| document(limits, policy)).collect();
        return json!({ "schema": SCHEMA, "enabled": limits.enabled, "policies": policies }).to_string();
    }
    if limits.policies.is_empty() {
        return "there are no policies, so nothing is limited".to_owned();
    }
    let head = ["NAME", "ALGORITHM", "LIMIT", "WINDOW", "KEY", "APPLIES TO", "MODE"].map(str::to_owned);
    let rows: Vec<_> = limits.policies.iter().map(|policy| row(limits, policy)).collect();
    columns(&[vec![head], rows].concat())
}

/// Each policy with what it counts by, for errors.
pub(super) fn summary(limits: &RateLimit) -> String {
    let named = |policy: &Policy| format!("{} (by {})", policy.name, key(&policy.to_json()["key"]));
    limits.policies.iter().map(named).collect::<Vec<_>>().join(", ")
}

fn row(limits: &RateLimit, policy: &Policy) -> [String; 7] {
    let told = policy.to_json();
    [
        policy.name.to_string(),
        words(&told["algorithm"], ""),
        policy.limit.to_string(),
        duration(policy.window()),
        key(&told["key"]),
        applies_to(&told),
        mode(limits, policy).to_owned(),
    ]
}

fn document(limits: &RateLimit, policy: &Policy) -> Value {
    let told = policy.to_json();
    let tiers = if told["tiers"].is_null() { json!({}) } else { told["tiers"].clone() };
    json!({
        "name": told["name"],
        "algorithm": told["algorithm"],
        "limit": told["limit"],
        "window_seconds": policy.window().as_secs_f64(),
        "burst": told["burst"],
        "max_delay_seconds": policy.max_delay.map(|delay| delay.as_secs_f64()),
        "cost": told["cost"],
        "key": told["key"],
        "paths": told["paths"],
        "methods": told["methods"],
        "tiers": tiers,
        "count": told["count"],
        "lease": told["lease"],
        "on_outage": told["on_outage"],
        "mode": mode(limits, policy),
    })
}

fn mode(limits: &RateLimit, policy: &Policy) -> &'static str {
    match (limits.enabled, limits.shadow || policy.shadow) {
        (false, _) => "off",
        (true, true) => "shadow",
        (true, false) => "enforced",
    }
}

fn key(key: &Value) -> String {
    match &key["first"] {
        Value::Null => words(key, "+"),
        first => format!("first of {}", words(first, ", ")),
    }
}

fn applies_to(told: &Value) -> String {
    let (methods, paths) = (words(&told["methods"], ","), words(&told["paths"], " "));
    match (methods.as_str(), paths.as_str()) {
        (_, "") => "nothing but by name".to_owned(),
        ("", "/**") => "everything".to_owned(),
        ("", paths) => paths.to_owned(),
        (methods, paths) => format!("{methods} {paths}"),
    }
}

/// A text, or a list of texts with something between them.
fn words(value: &Value, between: &str) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(between),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use config::{Assignment, FileChoice, Sources};

    use super::*;

    fn limits() -> RateLimit {
        let policies = "[{ name = \"a\", limit = 5, window = \"15m\", methods = [\"GET\"], paths = [\"/x/**\"] }, \
                        { name = \"b\", limit = 3, algorithm = \"concurrency\", key = { first = [\"user\", \"address\"] }, \
                        paths = [], shadow = true, tiers = { admin = \"unlimited\" } }, \
                        { name = \"c\", limit = 1, window = \"1s\", key = [\"user\", \"route\"] }]";
        let flags = vec![Assignment::new("rate_limit.policy", policies, "--set")];
        let sources = Sources { file: FileChoice::Nothing, flags, ..Sources::default() };
        config::load(&sources).unwrap().settings.rate_limit
    }

    #[test]
    fn every_policy_has_a_line_that_says_whom_it_counts_where() {
        let expected = "\
NAME  ALGORITHM     LIMIT  WINDOW  KEY                     APPLIES TO           MODE
a     fixed_window  5      15m     address                 GET /x/**            enforced
b     concurrency   3      5s      first of user, address  nothing but by name  shadow
c     fixed_window  1      1s      user+route              everything           enforced";
        assert_eq!(text(&limits(), false), expected);
        assert_eq!(summary(&limits()), "a (by address), b (by first of user, address), c (by user+route)");
    }

    #[test]
    fn the_document_names_its_schema_and_leaves_nothing_out() {
        let document: Value = serde_json::from_str(&text(&RateLimit { enabled: false, ..limits() }, true)).unwrap();
        assert_eq!((&document["schema"], &document["enabled"]), (&json!("bellwether.limits/v1"), &json!(false)));
        let [a, b, _] = document["policies"].as_array().unwrap().as_slice() else { panic!("three policies") };
        assert_eq!((&a["window_seconds"], &a["tiers"], &a["mode"]), (&json!(900.0), &json!({}), &json!("off")));
        assert_eq!(b["tiers"], json!({ "admin": "unlimited" }));
        assert!(a.as_object().unwrap().contains_key("burst") && a["burst"].is_null());
    }
}
