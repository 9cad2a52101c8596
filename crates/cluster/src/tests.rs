//! Members that find one another over a real Redis.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use redis_store::{RedisStore, Role, Url};
use telemetry::Registry;
use test_support::{Redis, eventually_async};
use tokio::sync::watch;

use crate::{Host, Member, Membership, Place, place};

const PATIENCE: Duration = Duration::from_secs(30);

fn member(host: u64, worker: u32) -> Member {
    Member { host: Host(host), worker }
}

async fn join(redis: &Redis, own: Member) -> (Membership, watch::Receiver<Arc<[Member]>>) {
    let url = Url::parse(&redis.unix_url()).unwrap();
    let store =
        RedisStore::connect(&redis_store::Config { url, command_timeout: Duration::from_millis(300) }, Role::State);
    store.first_attempt().await;
    let membership = Membership::join(&store, "test", own, &Registry::new());
    let members = membership.members();
    (membership, members)
}

async fn knows(members: &watch::Receiver<Arc<[Member]>>, expected: &[Member]) {
    eventually_async(PATIENCE, async || {
        let known = Arc::clone(&members.borrow());
        if *known == *expected { Ok(()) } else { Err(format!("{known:?}")) }
    })
    .await;
}

#[tokio::test]
async fn members_hear_of_one_another_and_of_who_is_gone() {
    let redis = Redis::start();
    let (first, other) = (member(1, 0), member(2, 7));
    let (_membership, members) = join(&redis, first).await;
    let (others_membership, others_members) = join(&redis, other).await;
    knows(&members, &[first, other]).await;
    knows(&others_members, &[first, other]).await;
    redis.command(&["ZADD", "test:cluster:workers", "inf", "not a member"]);
    drop(others_membership);
    knows(&members, &[first]).await;
    let lifetime: i64 = redis.command(&["PTTL", "test:cluster:workers"]).parse().unwrap();
    assert!((1..=10_000).contains(&lifetime), "{lifetime}");
}

#[tokio::test]
async fn the_last_members_stay_known_while_redis_is_away_and_when_it_has_forgotten_them() {
    let redis = Redis::start();
    let (first, other) = (member(1, 0), member(1, 1));
    let (_membership, mut members) = join(&redis, first).await;
    let others_membership = join(&redis, other).await;
    knows(&members, &[first, other]).await;
    members.mark_unchanged();
    redis.restart();
    let beats = async || redis.command(&["ZCARD", "test:cluster:workers"]) == "2";
    eventually_async(PATIENCE, beats).await;
    assert!(!members.has_changed().unwrap(), "{members:?}");
    redis.kill();
    drop(others_membership);
    redis.restart();
    knows(&members, &[first]).await;
}

#[test]
fn a_host_is_the_same_for_all_children_of_a_process_and_is_written_as_16_digits() {
    let host = Host::of_this_process();
    assert_eq!(host, Host::of_this_process());
    assert_eq!(host.to_string().parse(), Ok(host));
    assert_eq!("00000000000000ff:12".parse(), Ok(member(255, 12)));
    assert_eq!(member(255, 12).to_string(), "00000000000000ff:12");
    for wrong in ["", "ff:1", "00000000000000ff", "00000000000000ff:", "00000000000000ff:-1", "+0000000000000ff:1"] {
        assert_eq!(wrong.parse::<Member>(), Err(()), "{wrong}");
    }
}

#[test]
fn a_worker_alone_or_beyond_the_scale_has_a_place_of_its_own() {
    assert_eq!(place(member(5, 2), 4, &[]), Place { index: 2, workers: 4 });
    assert_eq!(place(member(5, 2), 4, &[member(5, 0), member(5, 9)]), Place { index: 2, workers: 4 });
    assert_eq!(place(member(5, 6), 4, &[]), Place { index: 6, workers: 7 });
    assert_eq!(place(member(5, 0), 0, &[]), Place { index: 0, workers: 1 });
}

proptest! {
    #[test]
    fn hosts_that_know_one_another_give_everybody_a_number_of_his_own(
        hosts in prop::collection::btree_map(any::<u64>(), 1_u32..9, 1..9),
    ) {
        let all: Vec<Member> =
            hosts.iter().flat_map(|(&host, &workers)| (0..workers).map(move |worker| member(host, worker))).collect();
        let places = all.iter().map(|own| place(*own, hosts[&own.host.0], &all));
        let expected = (0..).map(|index| Place { index, workers: all.len() as u32 });
        prop_assert!(places.eq(expected.take(all.len())));
    }
}
