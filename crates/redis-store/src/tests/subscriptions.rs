//! What a subscriber is told.

use std::time::{Duration, Instant};

use test_support::{FaultProxy, Mode, Redis, unique_prefix};

use super::{LIMIT, config, connect};
use crate::{Event, RedisStore, Role, Subscription};

async fn next(subscription: &mut Subscription) -> Event {
    tokio::time::timeout(LIMIT, subscription.next()).await.expect("an event")
}

fn message(channel: &str, payload: &str) -> Event {
    Event::Message { channel: channel.to_owned().into(), payload: payload.to_owned().into() }
}

#[tokio::test]
async fn once_subscribed_every_message_arrives_in_order() {
    let redis = Redis::shared();
    let (one, two) = (unique_prefix(), unique_prefix());
    let store = connect(&redis.unix_url()).await;
    let mut subscription = store.subscribe(vec![one.clone(), two.clone()]);
    assert_eq!(next(&mut subscription).await, Event::Subscribed);
    for number in 0..100 {
        let channel = if number % 2 == 0 { &one } else { &two };
        redis.command(&["PUBLISH", channel, &number.to_string()]);
    }
    for number in 0..100 {
        let channel = if number % 2 == 0 { &one } else { &two };
        assert_eq!(next(&mut subscription).await, message(channel, &number.to_string()));
    }
}

#[tokio::test]
async fn a_killed_connection_is_told_and_made_again() {
    let redis = Redis::start();
    let store = connect(&redis.url()).await;
    let mut subscription = store.subscribe(vec!["c".to_owned()]);
    assert_eq!(next(&mut subscription).await, Event::Subscribed);
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(next(&mut subscription).await, Event::Lost);
    assert_eq!(next(&mut subscription).await, Event::Subscribed);
    redis.command(&["PUBLISH", "c", "again"]);
    assert_eq!(next(&mut subscription).await, message("c", "again"));
}

#[tokio::test]
async fn a_black_holed_connection_is_noticed_and_told() {
    let redis = Redis::start();
    let proxy = FaultProxy::start(redis.address());
    let store = connect(&format!("redis://{}", proxy.address())).await;
    let mut subscription = store.subscribe(vec!["c".to_owned()]);
    assert_eq!(next(&mut subscription).await, Event::Subscribed);
    proxy.set(Mode::BlackHole);
    let start = Instant::now();
    assert_eq!(next(&mut subscription).await, Event::Lost);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    proxy.set(Mode::Pass);
    assert_eq!(next(&mut subscription).await, Event::Subscribed);
}

#[tokio::test]
async fn without_a_server_the_subscriber_is_told_once_and_subscribed_later() {
    let redis = Redis::start();
    redis.kill();
    let store = RedisStore::connect(&config(&redis.url()), Role::Cache);
    let mut subscription = store.subscribe(vec!["c".to_owned()]);
    assert_eq!(next(&mut subscription).await, Event::Lost);
    redis.restart();
    assert_eq!(next(&mut subscription).await, Event::Subscribed);
}

#[tokio::test]
async fn a_refused_subscription_is_never_called_subscribed() {
    let redis = Redis::start();
    redis.command(&["ACL", "SETUSER", "mute", "on", "nopass", "allkeys", "resetchannels", "+@all"]);
    let store = connect(&format!("redis://mute:x@{}", redis.address())).await;
    let mut subscription = store.subscribe(vec!["c".to_owned()]);
    assert_eq!(next(&mut subscription).await, Event::Lost);
    redis.command(&["ACL", "SETUSER", "mute", "allchannels"]);
    assert_eq!(next(&mut subscription).await, Event::Subscribed);
}

#[tokio::test]
async fn a_subscriber_that_falls_behind_is_told_that_it_missed_something() {
    let redis = Redis::start();
    let store = connect(&redis.unix_url()).await;
    let mut subscription = store.subscribe(vec!["c".to_owned()]);
    assert_eq!(next(&mut subscription).await, Event::Subscribed);
    let flood = crate::Script::new("for i = 1, 20000 do redis.call('PUBLISH', 'c', i) end");
    store.with_timeout(LIMIT).run(&flood, &[], &[]).await.unwrap();
    let mut seen = 0;
    while next(&mut subscription).await != Event::Lost {
        seen += 1;
    }
    assert!(seen < 20_000, "{seen} messages and yet one was missed");
    assert_eq!(next(&mut subscription).await, Event::Subscribed);
}
