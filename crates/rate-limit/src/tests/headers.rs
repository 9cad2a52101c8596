//! What clients read.

use super::*;
use crate::{
    Error, Policies, PolicyState,
    decision::States,
    headers::{rate_limit, retry_after, violated},
};

fn policies() -> Policies {
    let minute = policy("default", 100, Duration::from_secs(60));
    let day = policy("per.day_1-x", 1_000_000_000_000, Duration::from_secs(86_400));
    let quick = policy("quick", 0, Duration::from_millis(1));
    Policies::new(&[minute, day, quick]).unwrap()
}

fn decision(allowed: bool, states: &[(u8, u64, u64)]) -> Decision {
    let state = |&(policy, remaining, reset_us): &(u8, u64, u64)| PolicyState {
        policy,
        limit: 100,
        remaining,
        reset: Duration::from_micros(reset_us),
    };
    Decision::new(allowed, Source::Redis, states.iter().map(state).collect::<States>())
}

#[test]
fn the_policies_are_announced_in_the_syntax_of_draft_10() {
    let policies = policies();
    let set = policies.matching("GET", "/");
    let header = r#""default";q=100;w=60, "per.day_1-x";q=1000000000000;w=86400, "quick";q=0;w=1"#;
    assert_eq!(&*policies.header(set), header);
    assert_eq!(&*policies.header(set), header, "the second time from memory");
    assert_eq!(&*policies.header(crate::PolicySet::default()), "");
}

#[test]
fn what_is_left_is_told_in_whole_seconds_rounded_up() {
    let policies = policies();
    let check = |states: &[(u8, u64, u64)], expected: &str| {
        assert_eq!(rate_limit(&policies, &decision(true, states)).as_deref(), Some(expected));
    };
    check(&[(0, 42, 17_000_000)], r#""default";r=42;t=17"#);
    check(&[(0, 42, 17_000_001)], r#""default";r=42;t=18"#);
    check(&[(0, 0, 1)], r#""default";r=0;t=1"#);
    check(&[(0, 0, 0)], r#""default";r=0;t=0"#);
    check(&[(1, 5, 1_500_000), (2, 0, 900)], r#""per.day_1-x";r=5;t=2, "quick";r=0;t=1"#);
    assert_eq!(rate_limit(&policies, &Decision::unlimited()), None);
}

#[test]
fn a_denied_client_is_sent_away_until_every_violated_window_has_ended() {
    let check = |allowed, states: &[(u8, u64, u64)], expected| {
        assert_eq!(retry_after(&decision(allowed, states)), expected);
    };
    check(true, &[(0, 0, 5_000_000)], None);
    check(false, &[(0, 0, 5_000_000)], Some(5));
    check(false, &[(0, 0, 4_000_001)], Some(5));
    check(false, &[(0, 0, 0)], Some(1));
    check(false, &[(0, 0, 2_000_000), (1, 0, 9_000_000), (2, 3, 60_000_000)], Some(9));
    let denied = decision(false, &[(0, 0, 1), (1, 4, 1), (2, 0, 1)]);
    assert_eq!(violated(&policies(), &denied).collect::<Vec<_>>(), ["default", "quick"]);
    let allowed = decision(true, &[(0, 0, 1)]);
    assert_eq!(violated(&policies(), &allowed).count(), 0);
}

#[test]
fn policies_that_cannot_be_enforced_are_refused() {
    let refused = |policy: Policy| match Policies::new(&[policy]) {
        Err(Error::Policy { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    for name in ["", "a b", "a\"b", "a:b", "a{b}", "ä", &"x".repeat(65)] {
        refused(policy(name, 1, LONG));
    }
    refused(policy("p", u64::MAX, LONG));
    refused(policy("p", 1, Duration::from_micros(999)));
    refused(policy("p", 1, Duration::from_secs(367 * 86_400)));
    refused(Policy { paths: vec!["x".to_owned()], ..policy("p", 1, LONG) });
    refused(Policy { methods: vec!["get".to_owned()], ..policy("p", 1, LONG) });
    let twice = [policy("p", 1, LONG), policy("p", 2, LONG)];
    assert_eq!(Policies::new(&twice).unwrap_err(), Error::DuplicateName("p".to_owned()));
    let many: Vec<Policy> = (0..65).map(|number| policy(&format!("p{number}"), 1, LONG)).collect();
    assert_eq!(Policies::new(&many).unwrap_err(), Error::TooManyPolicies(65));
    Policies::new(&many[..64]).unwrap();
}

#[test]
fn every_policy_that_matches_applies() {
    let with = |name: &str, paths: &[&str], methods: &[&str]| Policy {
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
        methods: methods.iter().map(|&method| method.to_owned()).collect(),
        ..policy(name, 1, LONG)
    };
    let policies = Policies::new(&[
        with("all", &[], &[]),
        with("catalogue", &["/api/v1/products/**", "/api/v1/categories"], &["GET"]),
        with("writes", &[], &["POST", "PATCH"]),
    ])
    .unwrap();
    let check = |method, path, expected: &[&str]| {
        let set = policies.matching(method, path);
        let names: Vec<_> = set.iter().map(|number| policies.name(number)).collect();
        assert_eq!(names, expected, "{method} {path}");
        assert_eq!(set.len(), expected.len());
    };
    check("GET", "/api/v1/products", &["all", "catalogue"]);
    check("HEAD", "/api/v1/products/7", &["all", "catalogue"]);
    check("PATCH", "/api/v1/products/7", &["all", "writes"]);
    check("GET", "/api/v1/categories/", &["all", "catalogue"]);
    check("GET", "/api/v1/categories/x", &["all"]);
    check("DELETE", "/", &["all"]);
}
