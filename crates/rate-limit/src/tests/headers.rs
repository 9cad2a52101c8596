//! What clients read.

use super::*;
use crate::{
    Error, Policies, PolicyState, Verdict,
    headers::{Asked, Form, fields, names, retry_after, violated},
};

fn policies() -> Policies {
    let minute = policy("default", 100, Duration::from_secs(60));
    let day = policy("per.day_1-x", 1_000_000_000_000, Duration::from_secs(86_400));
    let quick = policy("quick", 0, Duration::from_millis(1));
    Policies::new(&config(vec![minute, day, quick])).unwrap()
}

/// What was asked under all policies, of which some are told of: number, left, and how long until there is more.
fn asked(policies: &Policies, verdict: Verdict, states: &[(u8, u64, u64)]) -> [Asked; 1] {
    let request = policies.request(policies.all(), &Subject::of_address(client(1)));
    let state = |&(policy, remaining, reset_us): &(u8, u64, u64)| {
        let part = request.parts[usize::from(policy)];
        PolicyState {
            reset: Some(Duration::from_micros(reset_us)),
            violated: remaining == 0,
            ..PolicyState::new(policies.rule(part.rule), part, remaining)
        }
    };
    let decision = Decision::new(verdict, Source::Redis, states.iter().map(state).collect());
    [(request, decision)]
}

fn field(policies: &Policies, asked: &[Asked], form: Form, name: &str) -> Option<String> {
    let now = Duration::from_millis(1_790_000_000_500);
    let fields = fields(policies, asked, form, || now);
    assert!(fields.iter().all(|(name, _)| names(form).contains(name)));
    fields.into_iter().find(|(other, _)| *other == name).map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn the_policies_are_announced_in_the_syntax_of_draft_10() {
    let policies = policies();
    let asked = asked(&policies, Verdict::Allowed, &[]);
    let header = r#""default";q=100;w=60, "per.day_1-x";q=1000000000000;w=86400, "quick";q=0;w=1"#;
    assert_eq!(field(&policies, &asked, Form::Draft10, "ratelimit-policy").as_deref(), Some(header));
    assert!(fields(&policies, &[], Form::Draft10, || Duration::ZERO).is_empty());
}

#[test]
fn a_parser_of_structured_fields_reads_what_draft_10_promises() {
    let policies = policies();
    let asked = asked(&policies, Verdict::Denied, &[(0, 42, 16_000_001), (1, 0, 1)]);
    let items = |name| {
        let value = field(&policies, &asked, Form::Draft10, name).unwrap();
        let list: sfv::List = sfv::Parser::new(&value).parse().unwrap();
        let item = |entry: &sfv::ListEntry| {
            let sfv::ListEntry::Item(item) = entry else { panic!("{value}: no inner lists") };
            let number = |key: &str| item.params.get(key).and_then(sfv::BareItem::as_integer).map(i64::from);
            let name = item.bare_item.as_string().unwrap().as_str().to_owned();
            (name, ["q", "w", "r", "t"].map(number))
        };
        list.iter().map(item).collect::<Vec<_>>()
    };
    let name = |name: &str| name.to_owned();
    assert_eq!(
        items("ratelimit-policy"),
        [
            (name("default"), [Some(100), Some(60), None, None]),
            (name("per.day_1-x"), [Some(1_000_000_000_000), Some(86_400), None, None]),
            (name("quick"), [Some(0), Some(1), None, None]),
        ]
    );
    let left =
        [(name("default"), [None, None, Some(42), Some(17)]), (name("per.day_1-x"), [None, None, Some(0), Some(1)])];
    assert_eq!(items("ratelimit"), left);
}

#[test]
fn what_is_left_is_told_in_whole_seconds_rounded_up() {
    let policies = policies();
    let check = |states: &[(u8, u64, u64)], expected: &str| {
        let asked = asked(&policies, Verdict::Allowed, states);
        assert_eq!(field(&policies, &asked, Form::Draft10, "ratelimit").as_deref(), Some(expected));
    };
    check(&[(0, 42, 17_000_000)], r#""default";r=42;t=17"#);
    check(&[(0, 42, 17_000_001)], r#""default";r=42;t=18"#);
    check(&[(0, 0, 1)], r#""default";r=0;t=1"#);
    check(&[(0, 0, 0)], r#""default";r=0;t=0"#);
    check(&[(1, 5, 1_500_000), (2, 0, 900)], r#""per.day_1-x";r=5;t=2, "quick";r=0;t=1"#);
}

#[test]
fn older_forms_tell_of_the_policy_that_is_nearest_to_its_limit() {
    let policies = policies();
    let asked = asked(&policies, Verdict::Allowed, &[(0, 40, 5_000_001), (1, 999_999_999_999, 50_000_000)]);
    let check = |form, name, expected| assert_eq!(field(&policies, &asked, form, name).as_deref(), Some(expected));
    let quotas = "100;w=60, 1000000000000;w=86400, 0;w=1";
    check(Form::Draft7, "ratelimit-policy", quotas);
    check(Form::Draft7, "ratelimit", "limit=100, remaining=40, reset=6");
    check(Form::Draft6, "ratelimit-policy", quotas);
    check(Form::Draft6, "ratelimit-limit", "100");
    check(Form::Draft6, "ratelimit-remaining", "40");
    check(Form::Draft6, "ratelimit-reset", "6");
    check(Form::Legacy, "x-ratelimit-limit", "100");
    check(Form::Legacy, "x-ratelimit-remaining", "40");
    check(Form::Legacy, "x-ratelimit-reset", "1790000006");
}

#[test]
fn what_is_only_watched_is_not_told_of_and_what_counts_at_once_has_its_unit() {
    let watched = Policy { shadow: true, ..policy("watched", 5, LONG) };
    let at_once = Policy { algorithm: Algorithm::Concurrency, ..policy("at-once", 3, Duration::from_secs(5)) };
    let policies = Policies::new(&config(vec![watched, at_once])).unwrap();
    let asked = asked(&policies, Verdict::Denied, &[(0, 0, 1), (1, 0, 1_000_000)]);
    let check = |name, expected| assert_eq!(field(&policies, &asked, Form::Draft10, name).as_deref(), Some(expected));
    check("ratelimit-policy", r#""at-once";q=3;qu="concurrent-requests""#);
    check("ratelimit", r#""at-once";r=0;t=1"#);
    assert_eq!(violated(&policies, &asked[0].1).collect::<Vec<_>>(), ["at-once"]);
}

#[test]
fn a_denied_client_is_sent_away_until_every_violated_window_has_ended() {
    let policies = policies();
    let check = |verdict, states: &[(u8, u64, u64)], expected| {
        assert_eq!(retry_after(&asked(&policies, verdict, states)[0].1), expected);
    };
    check(Verdict::Allowed, &[(0, 0, 5_000_000)], None);
    check(Verdict::Denied, &[(0, 0, 5_000_000)], Some(5));
    check(Verdict::Denied, &[(0, 0, 4_000_001)], Some(5));
    check(Verdict::Denied, &[(0, 0, 0)], Some(1));
    check(Verdict::Denied, &[(0, 0, 2_000_000), (1, 0, 9_000_000), (2, 3, 60_000_000)], Some(9));
    let denied = asked(&policies, Verdict::Denied, &[(0, 0, 1), (1, 4, 1), (2, 0, 1)]);
    assert_eq!(violated(&policies, &denied[0].1).collect::<Vec<_>>(), ["default", "quick"]);
    let allowed = asked(&policies, Verdict::Allowed, &[(0, 0, 1)]);
    assert_eq!(violated(&policies, &allowed[0].1).count(), 0);
}

#[test]
fn policies_that_cannot_be_enforced_are_refused() {
    let refused = |policy: Policy| match Policies::new(&config(vec![policy])) {
        Err(Error::Policy { problem, .. }) => problem,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("accepted"),
    };
    for name in ["", "a b", "a\"b", "a:b", "a{b}", "ä", &"x".repeat(65)] {
        refused(policy(name, 1, LONG));
    }
    refused(policy("p", u64::MAX, LONG));
    refused(policy("p", 1, Duration::from_micros(999)));
    refused(policy("p", 1, Duration::from_secs(367 * 86_400)));
    refused(Policy { paths: Some(vec!["x".to_owned()]), ..policy("p", 1, LONG) });
    refused(Policy { methods: vec!["get".to_owned()], ..policy("p", 1, LONG) });
    let twice = vec![policy("p", 1, LONG), policy("p", 2, LONG)];
    assert_eq!(Policies::new(&config(twice)).err().unwrap(), Error::DuplicateName("p".to_owned()));
    let many: Vec<Policy> = (0..65).map(|number| policy(&format!("p{number}"), 1, LONG)).collect();
    assert_eq!(Policies::new(&config(many.clone())).err().unwrap(), Error::TooManyPolicies(65));
    Policies::new(&config(many[..64].to_vec())).unwrap();
}

#[test]
fn every_policy_that_matches_applies() {
    let with = |name: &str, paths: &[&str], methods: &[&str]| Policy {
        paths: (!paths.is_empty()).then(|| paths.iter().map(|&path| path.to_owned()).collect()),
        methods: methods.iter().map(|&method| method.to_owned()).collect(),
        ..policy(name, 1, LONG)
    };
    let policies = Policies::new(&config(vec![
        with("all", &[], &[]),
        with("catalogue", &["/api/v1/products/**", "/api/v1/categories"], &["GET"]),
        with("writes", &[], &["POST", "PATCH"]),
    ]))
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
