//! What URLs mean, and what they keep to themselves.

use crate::url::{Credentials, ServerAddress, Url};

#[test]
fn every_form_is_understood() {
    let check = |text: &str, shown: &str| {
        let url = Url::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(url.to_string(), shown, "{text}");
    };
    check("redis://127.0.0.1", "redis://127.0.0.1:6379");
    check("redis://127.0.0.1:7000/2", "redis://127.0.0.1:7000/2");
    check("rediss://cache.example/", "rediss://cache.example:6379");
    check("redis://[::1]:7000", "redis://[::1]:7000");
    check("redis://[::1]", "redis://[::1]:6379");
    check("redis+unix:///run/redis%20x.sock", "redis+unix:///run/redis x.sock");
    check("redis+unix://u:p@/run/redis.sock?db=4", "redis+unix:///run/redis.sock?db=4");
    check("redis-cluster://a:1,b,c:3", "redis-cluster://a:1,b:6379,c:3");
    check("rediss-cluster://a/0", "rediss-cluster://a:6379/0");
    check("redis-sentinel://a,b:2/main", "redis-sentinel://a:26379,b:2/main");
    check("redis-sentinel://a/main/1", "redis-sentinel://a:26379/main/1");
}

#[test]
fn what_cannot_be_used_is_refused_without_repeating_it() {
    for text in [
        "127.0.0.1:6379",
        "http://127.0.0.1",
        "redis://",
        "redis://secret@",
        "redis://a,b",
        "redis://a:port",
        "redis://a:70000",
        "redis://[::1",
        "redis://a/x",
        "redis://a/256",
        "redis+unix://run/redis.sock",
        "redis+unix:///",
        "redis-cluster://a/1",
        "redis-sentinel://a",
        "redis://secret%zz@a",
        "redis://a?secret=1",
    ] {
        let error = Url::parse(text).expect_err(text).to_string();
        assert!(!error.contains("secret"), "{text}: {error}");
    }
}

#[test]
fn credentials_are_decoded_and_never_shown() {
    let parse = |text| Url::parse(text).unwrap();
    let check = |url: &Url, username: Option<&str>, password: Option<&str>| {
        let expected = Credentials { username: username.map(str::to_owned), password: password.map(str::to_owned) };
        assert!(url.credentials == expected);
        assert!(!format!("{url} {url:?}").contains("ecret"));
    };
    check(&parse("redis://u:s%2Fecret@h"), Some("u"), Some("s/ecret"));
    check(&parse("redis://:secret@h"), None, Some("secret"));
    check(&parse("redis://u:se@ecret@h"), Some("u"), Some("se@ecret"));
    check(&parse("redis://h"), None, None);
    let sentinel = parse("redis-sentinel://h/s?sentinel_username=x&sentinel_password=secret");
    let ServerAddress::Sentinel { credentials, .. } = &sentinel.server else {
        panic!("{sentinel}");
    };
    assert_eq!(credentials.password.as_deref(), Some("secret"));
    check(&sentinel, None, None);
}

#[test]
fn a_password_is_exposed_where_it_leaves_the_machine_without_tls() {
    let cases = [
        ("redis://:secret@cache.example", true),
        ("redis://user@cache.example", false),
        ("redis://:secret@127.0.0.1", false),
        ("redis://:secret@localhost", false),
        ("redis://:secret@[::1]", false),
        ("redis://cache.example", false),
        ("rediss://:secret@cache.example", false),
        ("redis+unix://:secret@/run/redis.sock", false),
        ("redis-cluster://:secret@127.0.0.1,10.0.0.2", true),
        ("redis-sentinel://10.0.0.2/main?sentinel_password=secret", true),
    ];
    for (text, exposed) in cases {
        assert_eq!(Url::parse(text).unwrap().exposes_password(), exposed, "{text}");
    }
}
