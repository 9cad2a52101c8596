//! Tests against real servers, and through a proxy that breaks things.

mod examinations;
mod outages;
mod subscriptions;
mod topologies;
mod urls;

use std::time::Duration;

use bytes::Bytes;
use test_support::{Redis, unique_prefix};

use crate::{Arg, Config, Error, RedisStore, Reply, Role, Script, Url};

/// Far beyond what anything takes on a machine that is busy with other things; the exact bounds are constants.
const LIMIT: Duration = Duration::from_secs(30);

fn config(url: &str) -> Config {
    Config { url: Url::parse(url).unwrap(), command_timeout: Duration::from_millis(300) }
}

async fn connect(url: &str) -> RedisStore {
    let store = RedisStore::connect(&config(url), Role::State);
    tokio::time::timeout(LIMIT, store.connected()).await.expect("a connection");
    store
}

fn key(name: &str) -> Bytes {
    format!("{}:{name}", unique_prefix()).into()
}

#[tokio::test]
async fn values_are_written_with_a_lifetime_and_read_back_over_tcp_and_unix_socket() {
    let redis = Redis::shared();
    for url in [redis.url(), redis.unix_url()] {
        let store = connect(&url).await;
        let (first, second) = (key("a"), key("b"));
        store.set(&first, "\0\r\n".into(), Duration::from_secs(9)).await.unwrap();
        assert_eq!(store.get(&first).await.unwrap().unwrap(), "\0\r\n");
        let both = store.mget(&[second.clone(), first.clone()]).await.unwrap();
        assert_eq!(both, [None, Some("\0\r\n".into())]);
        let ttl: u64 = redis.command(&["PTTL", std::str::from_utf8(&first).unwrap()]).parse().unwrap();
        assert!((1..=9000).contains(&ttl), "{ttl}");
        assert_eq!(store.del(&[first.clone(), second]).await.unwrap(), 1);
        assert_eq!(store.get(&first).await.unwrap(), None);
    }
}

#[tokio::test]
async fn scripts_take_bytes_and_integers_and_answer_every_shape() {
    let store = connect(&Redis::shared().unix_url()).await;
    let script = Script::new("return {KEYS[1], ARGV[1] + 1, false, {ARGV[2]}, redis.status_reply('FINE')}");
    let reply = store.run(&script, &[key("k")], &[41.into(), Arg::from(vec![0, 255])]).await.unwrap();
    let parts = reply.into_array().unwrap();
    assert_eq!(parts[1], Reply::Integer(42));
    assert_eq!(parts[2], Reply::Nil);
    assert_eq!(parts[3], Reply::Array(vec![Reply::Bytes(vec![0, 255].into())]));
    assert_eq!(parts[4], Reply::Bytes("FINE".into()));
}

#[tokio::test]
async fn a_script_that_redis_forgot_is_sent_once_more_and_counts_once() {
    let redis = Redis::start();
    let store = connect(&redis.url()).await;
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    let counter = key("counter");
    for expected in 1..=5 {
        redis.command(&["SCRIPT", "FLUSH"]);
        let count = store.run(&script, std::slice::from_ref(&counter), &[]).await.unwrap();
        assert_eq!(count, Reply::Integer(expected));
    }
    assert_eq!((redis.calls("evalsha"), redis.calls("eval")), (5, 5));
}

#[tokio::test]
async fn an_error_of_the_script_is_told_apart_and_not_sent_again() {
    let redis = Redis::start();
    let store = connect(&redis.url()).await;
    let script = Script::new("redis.call('INCR', KEYS[1]) return redis.error_reply('MINE no')");
    let counter = key("counter");
    let result = store.run(&script, std::slice::from_ref(&counter), &[]).await;
    assert_eq!(result, Err(Error::Server("MINE no".to_owned())));
    assert_eq!(store.get(&counter).await.unwrap().unwrap(), "1");
}

#[tokio::test]
async fn what_is_not_an_integer_is_not_taken_for_one() {
    let store = connect(&Redis::shared().unix_url()).await;
    let reply = store.run(&Script::new("return 'x'"), &[], &[]).await.unwrap();
    assert_eq!(reply.into_integer(), Err(Error::Unexpected { expected: "an integer" }));
}

#[tokio::test]
async fn a_password_is_used_and_a_wrong_one_is_no_connection() {
    let redis = Redis::start();
    redis.command(&["CONFIG", "SET", "requirepass", "p@ss"]);
    let store = connect(&format!("redis://:p%40ss@{}/3", redis.address())).await;
    assert_eq!(store.get(&key("x")).await.unwrap(), None);
    let wrong = RedisStore::connect(&config(&format!("redis://:no@{}", redis.address())), Role::Cache);
    wrong.first_attempt().await;
    assert!(!wrong.is_connected());
}

#[test]
fn the_store_can_be_shared_between_threads() {
    fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<RedisStore>();
    assert_send_sync::<crate::Subscription>();
}
