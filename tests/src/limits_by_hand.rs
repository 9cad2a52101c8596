//! `supervisor limits` against a running cluster, and what workers warn about.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use test_support::http::Request;
use test_support::{Redis, eventually};

use crate::cluster::{Cluster, run};

const POLICY: &str = "[http]\ntrusted_proxies = [\"127.0.0.1/32\"]\n\
     [[rate_limit.policy]]\nname = \"test\"\npaths = [\"/api/**\"]\nlimit = 100\nwindow = \"1h\"\n";

/// How long the news of a change may take to a busy worker; it finds out by itself within a second.
const NEWS: Duration = Duration::from_secs(10);

/// `supervisor limits` with the configuration and state of this cluster.
fn limits(cluster: &Cluster, arguments: &[&str]) -> Output {
    let state_dir = cluster.state_dir();
    let file = state_dir.with_file_name("bellwether.toml");
    let place = ["--config", file.to_str().unwrap(), "--state-dir", state_dir.to_str().unwrap()];
    cluster.command(&[&["limits"][..], arguments, &place].concat())
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn shown(cluster: &Cluster, key: &str) -> Value {
    let document: Value = serde_json::from_str(&stdout(&limits(cluster, &["show", key, "--json"]))).unwrap();
    assert_eq!((&document["schema"], &document["key"]), (&"bellwether.limits/v1".into(), &key.into()));
    document["policies"][0].clone()
}

fn from(address: &str) -> Request {
    Request::get("/api/v1/categories").header("x-forwarded-for", address)
}

#[test]
fn a_client_is_shown_blocked_let_in_again_and_forgotten_by_hand() {
    let cluster = Cluster::builder().workers(2).configuration(POLICY).start();
    let (client, other) = (from("203.0.113.7"), from("203.0.113.8"));
    assert_eq!(cluster.send(&client).status, 200);
    let before = shown(&cluster, "address:203.0.113.7");
    assert_eq!((before["remaining"].as_u64(), before["blocked_seconds"].as_f64()), (Some(99), None), "{before}");

    let told = stdout(&limits(&cluster, &["block", "address:203.0.113.7", "--for", "10m"]));
    assert_eq!(told, "address:203.0.113.7 is blocked for 10m under test\n");
    // Each connection may reach another worker, and all of them have to know.
    eventually(NEWS, || (0..10).all(|_| cluster.send(&client).status == 429));
    let retry_after = cluster.send(&client).header("retry-after").unwrap().parse::<u64>().unwrap();
    assert!((500..=600).contains(&retry_after), "{retry_after}");
    let blocked = shown(&cluster, "address:203.0.113.7");
    assert!(blocked["blocked_seconds"].as_f64().is_some_and(|left| left > 500.0), "{blocked}");
    assert_eq!(cluster.send(&other).status, 200, "nobody else is blocked");

    stdout(&limits(&cluster, &["unblock", "address:203.0.113.7"]));
    eventually(NEWS, || (0..10).all(|_| cluster.send(&client).status == 200));
    stdout(&limits(&cluster, &["reset", "address:203.0.113.7"]));
    assert_eq!(shown(&cluster, "address:203.0.113.7")["remaining"], 100);
}

#[test]
fn applications_are_found_by_a_key_from_a_file_and_anybody_by_the_hash_in_the_log() {
    let policy = format!("{POLICY}key = \"api_key\"\n").replace("limit = 100", "limit = 1");
    let cluster = Cluster::builder().workers(1).configuration(&policy).start();
    let request = from("203.0.113.7").header("x-api-key", "s3cret");
    assert_eq!(cluster.send(&request).status, 200);
    assert_eq!(cluster.send(&request).status, 429);
    let file = cluster.state_dir().with_file_name("key.txt");
    std::fs::write(&file, "s3cret\n").unwrap();
    let key = format!("api_key:@{}", file.display());
    let told = stdout(&limits(&cluster, &["show", &key]));
    assert!(told.contains("test    1      0 "), "{told}");
    let told = stdout(&limits(&cluster, &["reset", &key]));
    assert_eq!(told, "api_key begins afresh under test\n");
    eventually(NEWS, || cluster.send(&request).status == 200);

    stdout(&limits(&cluster, &["block", &key, "--for", "10m"]));
    let is_hash = |word: &&str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hash = eventually(NEWS, || {
        assert_eq!(cluster.send(&request).status, 429);
        let output = cluster.output();
        output.split(|letter: char| !letter.is_ascii_alphanumeric()).find(is_hash).map(str::to_owned)
    });
    stdout(&limits(&cluster, &["unblock", &hash]));
    eventually(NEWS, || cluster.send(&request).status == 200);
}

#[test]
fn a_tier_has_its_own_limit_and_a_policy_without_paths_applies_nowhere() {
    let policies = format!(
        "{POLICY}tiers = {{ admin = \"unlimited\" }}\n\
         [[rate_limit.policy]]\nname = \"by-name\"\npaths = []\nlimit = 0\nwindow = \"1h\"\n"
    );
    let cluster = Cluster::builder().workers(1).configuration(&policies.replace("limit = 100", "limit = 1")).start();
    assert!(cluster.output().contains("[rate-limit/limit-zero]"), "a start warns of a limit of nothing");
    let bearer = format!("Bearer {}", cluster.token());
    let admin = from("203.0.113.7").header("authorization", &bearer);
    let statuses: Vec<u16> = (0..3).map(|_| cluster.send(&admin).status).collect();
    assert_eq!(statuses, [200, 200, 200]);
    let statuses: Vec<u16> = (0..3).map(|_| cluster.send(&from("203.0.113.7")).status).collect();
    assert_eq!(statuses, [200, 429, 429]);
}

#[test]
fn the_policies_are_listed_without_redis_and_everything_else_says_that_it_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bellwether.toml");
    std::fs::write(&file, format!("{POLICY}[redis]\nurl = \"redis://127.0.0.1:1\"\n")).unwrap();
    let command = |arguments: &[&str]| run(directory.path(), &[&["limits"][..], arguments].concat());
    let listed = stdout(&command(&["ls"]));
    assert!(listed.contains("test  fixed_window  100    1h      address  /api/**     enforced"), "{listed}");

    let cases: [(&[&str], i32, &str); 7] = [
        (&["show", "192.0.2.1"], 2, "expected address:192.0.2.1, user:ID"),
        (&["show", "api_key:s3cret"], 2, "api_key:@FILE"),
        (&["block", "address:192.0.2.1", "--for", "10"], 2, "expected a duration such as 30s"),
        (&["show", "address:192.0.2.1"], 78, "no worker has ever run with this configuration"),
        (&["show", "user:a"], 2, "no policy counts by user; there are: test (by address)"),
        (&["reset", "address:192.0.2.1", "--policy", "tset"], 2, "there is no policy `tset`; there are: test"),
        (&["unblock", "address:192.0.2.1"], 69, "cannot reach redis://127.0.0.1:1;"),
    ];
    for (number, (arguments, code, part)) in cases.into_iter().enumerate() {
        if number == 4 {
            // It makes the key that workers would make.
            stdout(&run(directory.path(), &["token"]));
        }
        let ended = command(arguments);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{part} is missing in {said}");
    }
}

#[test]
fn a_redis_that_evicts_and_a_proxy_that_is_not_trusted_are_warned_about_once() {
    let redis = Redis::start();
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let cluster = Cluster::builder().workers(1).environment("REDIS_URL", &redis.unix_url()).start();
    let count = |code: &str| cluster.output().matches(code).count();
    eventually(Duration::from_secs(10), || count("redis-evicts") == 1);
    assert_eq!(count("proxy-untrusted"), 0);
    for _ in 0..5 {
        assert_eq!(cluster.send(&from("203.0.113.7")).status, 200);
    }
    eventually(Duration::from_secs(10), || count("proxy-untrusted") > 0);
    assert_eq!((count("proxy-untrusted"), count("redis-evicts")), (1, 1));
}
