//! Servers that die, freeze, lose replies, and a loop that is busy.

use std::time::{Duration, Instant};

use test_support::{FaultProxy, Mode, Redis, eventually_async};

use super::{LIMIT, config, connect, key};
use crate::{Error, RedisStore, Reply, Role, Script, connection::RECONNECT};

const INCREMENT: &str = "return redis.call('INCR', KEYS[1])";

#[tokio::test]
async fn without_a_server_the_first_attempt_ends_and_commands_fail_at_once() {
    let redis = Redis::start();
    redis.kill();
    let store = RedisStore::connect(&config(&redis.url()), Role::State);
    store.first_attempt().await;
    assert_eq!(store.get(&key("x")).await, Err(Error::Unavailable));
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_holds_the_first_attempt_for_a_second_at_most() {
    let redis = Redis::start();
    redis.stop();
    let store = RedisStore::connect(&config(&redis.url()), Role::State);
    let start = Instant::now();
    store.first_attempt().await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(!store.is_connected());
    redis.cont();
    tokio::time::timeout(LIMIT, store.connected()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again_with_the_next_attempt_which_comes_within_a_second() {
    let longest_wait = RECONNECT.delay(u32::MAX, 1.0);
    assert!(longest_wait < Duration::from_secs(1), "{longest_wait:?}");
    let redis = Redis::start();
    let proxy = FaultProxy::start(redis.address());
    let store = connect(&format!("redis://{}", proxy.address())).await;
    redis.kill();
    // So many that the waits between attempts have grown to the longest.
    eventually_async(LIMIT, async || proxy.traffic().connections >= 8).await;
    assert!(!store.is_connected());
    redis.restart();
    let attempts = proxy.traffic().connections;
    tokio::time::timeout(LIMIT, store.connected()).await.unwrap();
    assert!(proxy.traffic().connections <= attempts + 1);
    assert_eq!(store.get(&key("x")).await, Ok(None));
}

#[tokio::test]
async fn a_lost_reply_is_indeterminate_and_the_script_counts_once() {
    let redis = Redis::start();
    let proxy = FaultProxy::start(redis.address());
    let store = connect(&format!("redis://{}", proxy.address())).await;
    let script = Script::new(INCREMENT);
    let counter = key("counter");
    assert_eq!(store.run(&script, std::slice::from_ref(&counter), &[]).await, Ok(Reply::Integer(1)));
    proxy.drop_reply(1);
    let lost = store.run(&script, std::slice::from_ref(&counter), &[]).await;
    assert_eq!(lost, Err(Error::Indeterminate));
    tokio::time::timeout(LIMIT, store.connected()).await.unwrap();
    eventually_async(LIMIT, async || store.is_connected()).await;
    let next = eventually_async(LIMIT, async || store.run(&script, std::slice::from_ref(&counter), &[]).await).await;
    assert_eq!(next, Reply::Integer(3), "the lost one counted, and nothing else did");
}

#[tokio::test]
async fn a_frozen_server_costs_each_command_its_timeout_and_is_given_up() {
    let redis = Redis::start();
    let store = connect(&redis.url()).await;
    redis.stop();
    let start = Instant::now();
    assert_eq!(store.get(&key("x")).await, Err(Error::Indeterminate));
    let waited = start.elapsed();
    assert!((300..2000).contains(&waited.as_millis()), "{waited:?}");
    eventually_async(LIMIT, async || !store.is_connected()).await;
    redis.cont();
    tokio::time::timeout(LIMIT, store.connected()).await.unwrap();
}

#[tokio::test]
async fn commands_that_a_frozen_server_never_read_are_not_executed_later() {
    let redis = Redis::start();
    let store = connect(&redis.unix_url()).await;
    let script = Script::new("redis.call('INCR', KEYS[1]) return #ARGV[1]");
    let counter = key("counter");
    redis.stop();
    // More than the socket takes, so that fred hangs in a write and cannot look for silence.
    let ballast = vec![b'x'; 256 * 1024];
    let quick = store.with_timeout(Duration::from_millis(20));
    for _ in 0..20 {
        let result = quick.run(&script, std::slice::from_ref(&counter), &[ballast.clone().into()]).await;
        assert!(result.is_err());
    }
    eventually_async(LIMIT, async || !store.is_connected()).await;
    redis.cont();
    tokio::time::timeout(LIMIT, store.connected()).await.unwrap();
    let counted = store.get(&counter).await.unwrap();
    let counted: u32 = counted.map_or(0, |bytes| std::str::from_utf8(&bytes).unwrap().parse().unwrap());
    assert!(counted <= 2, "{counted} of 20 were executed; the socket holds one");
}

#[tokio::test]
async fn a_black_hole_is_noticed_and_left() {
    let redis = Redis::start();
    let proxy = FaultProxy::start(redis.address());
    let store = connect(&format!("redis://{}", proxy.address())).await;
    proxy.set(Mode::BlackHole);
    assert_eq!(store.get(&key("x")).await, Err(Error::Indeterminate));
    eventually_async(LIMIT, async || !store.is_connected()).await;
    proxy.set(Mode::Pass);
    tokio::time::timeout(LIMIT, store.connected()).await.unwrap();
}

#[tokio::test]
async fn a_loop_that_was_busy_longer_than_the_timeout_still_finds_its_reply() {
    let store = connect(&Redis::shared().unix_url()).await.with_timeout(Duration::from_millis(90));
    let absent = "absent".into();
    let block = || async {
        // The loop itself must be blocked: a task that hogs the thread.
        std::thread::sleep(Duration::from_millis(250));
    };
    for _ in 0..5 {
        // Blocked before the command is written, and again while its reply lies in the socket.
        let (reply, (), ()) = tokio::join!(store.get(&absent), block(), async {
            tokio::task::yield_now().await;
            block().await;
        });
        assert_eq!(reply, Ok(None));
    }
}

#[tokio::test]
async fn a_late_reply_is_late_soon_after_its_timeout() {
    let redis = Redis::start();
    let store = connect(&redis.unix_url()).await.with_timeout(Duration::from_millis(25));
    redis.stop();
    let mut waits = Vec::new();
    for _ in 0..9 {
        let start = Instant::now();
        assert_eq!(store.get(&key("x")).await, Err(Error::Indeterminate));
        waits.push(start.elapsed());
    }
    waits.sort_unstable();
    // The median, because a machine that is busy with other things stretches some of them.
    assert!((25..100).contains(&waits[4].as_millis()), "{waits:?}");
}

#[tokio::test]
async fn a_dropped_store_closes_its_connections() {
    let redis = Redis::start();
    let store = connect(&redis.url()).await;
    let mut subscription = store.subscribe(vec!["channel".to_owned()]);
    subscription.next().await;
    drop((store, subscription));
    // One is the connection that asks.
    eventually_async(LIMIT, async || redis.command(&["CLIENT", "LIST"]).lines().count() <= 1).await;
}
