//! The commented file that `config init` writes.

use std::path::PathBuf;

use super::Case;
use crate::{Count, OnOutage, Settings, template};

#[test]
fn the_template_is_valid_as_it_is_and_with_every_line_switched_on() {
    let loaded = Case::new().file(&template()).load().unwrap();
    assert!(loaded.warnings.is_empty());
    let names: Vec<_> = loaded.settings.rate_limit.policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names, ["catalogue", "everything"]);
    let defaults_with_its_policies = Settings { rate_limit: loaded.settings.rate_limit.clone(), ..Settings::default() };
    assert_eq!(loaded.settings, defaults_with_its_policies);

    let switched_on: String = template().lines().map(|line| format!("{}\n", switch_on(line))).collect();
    let loaded = Case::new().file(&switched_on).load().unwrap_or_else(|problems| panic!("{problems}"));
    let absent = loaded.shown().into_iter().find(|row| row.value.is_none());
    assert_eq!(absent, None, "the template leaves a key out");
    assert_eq!(loaded.settings.supervisor.processes[0].instances(), ["mailer-0", "mailer-1"]);
    assert_eq!(loaded.settings.http, Settings::default().http);
    assert!(loaded.warnings.is_empty());
    let policies = &loaded.settings.rate_limit.policies;
    let names: Vec<_> = policies.iter().map(|policy| policy.name.as_str()).collect();
    let expected =
        ["catalogue", "everything", "login", "one-time-code", "password-reset", "uploads", "search", "administration"];
    assert_eq!(names, expected);
    assert_eq!((policies[2].count, policies[2].on_outage), (Count::Failure, OnOutage::Closed));
    assert_eq!(policies[1].tiers.iter().count(), 2);
}

/// Takes the `# ` away from a line that shows a default, or belongs to a table that is none.
fn switch_on(line: &str) -> &str {
    let Some(rest) = line.strip_prefix("# ") else { return line };
    let name = rest.split_once(" = ").map(|(name, _)| name);
    let is_key = name.is_some_and(|name| {
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    });
    if is_key || rest.starts_with("[[") { rest } else { line }
}

#[test]
fn the_example_in_the_repository_is_the_template() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../bellwether.example.toml");
    let example = std::fs::read_to_string(path).unwrap();
    assert_eq!(example, template(), "write it anew: supervisor config init > bellwether.example.toml");
}
