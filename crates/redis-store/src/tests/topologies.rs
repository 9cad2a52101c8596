//! Clusters, sentinels and TLS.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use test_support::{Redis, RedisCluster, RedisSentinel, eventually, eventually_async, free_port};

use super::{LIMIT, config, connect};
use crate::{Error, Event, RedisStore, Reply, Role, Script};

#[tokio::test]
async fn a_cluster_is_used_through_all_its_masters() {
    let cluster = RedisCluster::start();
    let store = connect(&cluster.url()).await;
    assert!(store.is_cluster());
    let script = Script::new("return {redis.call('INCR', KEYS[1]), redis.call('INCR', KEYS[2])}");
    for lane in 0..64 {
        let keys = [format!("{{{lane}}}:a").into(), format!("{{{lane}}}:b").into()];
        let reply = store.run(&script, &keys, &[]).await.unwrap();
        assert_eq!(reply, Reply::Array(vec![Reply::Integer(1), Reply::Integer(1)]));
        assert_eq!(store.mget(&keys).await.unwrap(), [Some("1".into()), Some("1".into())]);
        store.set(&keys[0], "x".into(), Duration::from_secs(9)).await.unwrap();
        assert_eq!(store.del(&keys).await.unwrap(), 2);
    }
    assert!(cluster.nodes().iter().all(|node| node.calls("evalsha") > 0));
    let across = store.run(&script, &["a".into(), "b".into()], &[]).await;
    assert!(matches!(&across, Err(Error::Server(message)) if message.starts_with("CROSSSLOT")), "{across:?}");

    let mut subscription = store.subscribe(vec!["channel".to_owned()]);
    assert_eq!(subscription.next().await, Event::Subscribed);
    cluster.nodes()[2].command(&["PUBLISH", "channel", "hello"]);
    let message = Event::Message { channel: "channel".into(), payload: "hello".into() };
    assert_eq!(subscription.next().await, message);
}

#[tokio::test]
async fn a_slot_that_moves_to_another_node_is_followed() {
    let cluster = RedisCluster::start();
    let store = connect(&cluster.url()).await;
    let key = Bytes::from_static(b"{moves}");
    let slot: u16 = cluster.nodes()[0].command(&["CLUSTER", "KEYSLOT", "{moves}"]).parse().unwrap();
    let count = Script::new("return redis.call('INCR', KEYS[1])");
    for number in 0..4 {
        let counted = store.run(&count, std::slice::from_ref(&key), &[]).await;
        assert_eq!(counted, Ok(Reply::Integer(number + 1)));
        cluster.move_slot(slot, number as usize % 3);
    }
}

#[tokio::test]
async fn the_master_that_a_sentinel_names_is_used_also_after_a_failover() {
    let sentinel = RedisSentinel::start();
    let store = connect(&sentinel.url()).await;
    let (key, minute) = (Bytes::from("key"), Duration::from_secs(60));
    store.set(&key, "old".into(), minute).await.unwrap();
    eventually(LIMIT, || sentinel.replica().command(&["GET", "key"]) == "old");
    sentinel.fail_over();
    eventually_async(LIMIT * 3, async || store.set(&key, "new".into(), minute).await).await;
    assert_eq!(sentinel.replica().command(&["GET", "key"]), "new");
}

/// A server that speaks TLS with a certificate of its own, which is at the path returned.
fn tls_server(directory: &Path) -> (Redis, u16, PathBuf) {
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl makes the certificate");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (redis, port) = (Redis::start(), free_port());
    redis.command(&[
        "CONFIG",
        "SET",
        "tls-cert-file",
        certificate.to_str().unwrap(),
        "tls-key-file",
        key.to_str().unwrap(),
        "tls-auth-clients",
        "no",
        "tls-port",
        &port.to_string(),
    ]);
    (redis, port, certificate)
}

const TLS_URL: &str = "TEST_TLS_URL";

#[tokio::test]
async fn tls_connects_to_a_trusted_certificate_and_to_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (_redis, port, certificate) = tls_server(directory.path());
    let url = format!("rediss://127.0.0.1:{port}");
    let store = RedisStore::connect(&config(&url), Role::State);
    store.first_attempt().await;
    assert!(!store.is_connected());
    assert_eq!(store.get(&"x".into()).await, Err(Error::Unavailable));

    // The system's roots are read from the environment, which belongs to the whole process: another one trusts it.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::topologies::in_a_process_that_trusts_the_certificate", "--ignored"])
        .env("SSL_CERT_FILE", certificate)
        .env(TLS_URL, url)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

#[tokio::test]
#[ignore = "run by tls_connects_to_a_trusted_certificate_and_to_no_other"]
async fn in_a_process_that_trusts_the_certificate() {
    let store = connect(&std::env::var(TLS_URL).unwrap()).await;
    assert_eq!(store.get(&"x".into()).await, Ok(None));
}
