//! Guessing passwords, and owning an account that somebody guesses at.

use std::time::{Duration, Instant};

use test_support::{Redis, RedisCluster, eventually_async};

use super::*;
use crate::{Attempt, LoginConfig, LoginGuard, LoginVerdict};

const MINUTE: Duration = Duration::from_secs(60);

fn settings() -> LoginConfig {
    LoginConfig { timeout: Duration::from_secs(5), ..LoginConfig::new(&unique_prefix(), [42; 16]) }
}

async fn guard(config: &LoginConfig, url: &str) -> LoginGuard {
    let settings = redis_store::Config { url: Url::parse(url).unwrap(), command_timeout: Duration::from_millis(300) };
    let store = RedisStore::connect(&settings, Role::State);
    store.first_attempt().await;
    LoginGuard::new(config.clone(), &store, &Registry::new())
}

async fn shared_guard(config: &LoginConfig) -> LoginGuard {
    guard(config, &Redis::shared().unix_url()).await
}

async fn admitted(guard: &LoginGuard, address: u32, account: &str) -> Attempt {
    match guard.begin(client(address), account).await {
        LoginVerdict::Admitted(attempt) => attempt,
        other => panic!("{address} at {account}: {other:?}"),
    }
}

async fn blocked(guard: &LoginGuard, address: u32, account: &str) -> Duration {
    match guard.begin(client(address), account).await {
        LoginVerdict::Blocked { retry_after } => retry_after,
        other => panic!("{address} at {account}: {other:?}"),
    }
}

async fn fail(guard: &LoginGuard, address: u32, account: &str, times: u32) {
    for _ in 0..times {
        admitted(guard, address, account).await.failed();
    }
}

/// Fails until blocked, once an earlier block is over, and returns how long the new one is.
async fn fail_until_blocked(guard: &LoginGuard, address: u32, account: &str) -> Duration {
    let is_over = async || matches!(guard.begin(client(address), account).await, LoginVerdict::Admitted(_));
    eventually_async(PATIENCE, is_over).await;
    fail(guard, address, account, 4).await;
    blocked(guard, address, account).await
}

fn is_about(found: Duration, expected: Duration) -> bool {
    found <= expected && found > expected.mul_f64(0.5)
}

#[tokio::test]
async fn of_200_wrong_passwords_at_once_from_50_addresses_five_are_evaluated() {
    let config = settings();
    let evaluated: usize = on_workers(4, async |share| {
        let guard = shared_guard(&config).await;
        let mut attempts = JoinSet::new();
        for number in 0..50 {
            let (guard, address) = (guard.clone(), client(number + share.index % 2));
            attempts.spawn(async move { matches!(guard.begin(address, "owner").await, LoginVerdict::Admitted(_)) });
        }
        attempts.join_all().await.into_iter().filter(|is_admitted| *is_admitted).count()
    })
    .into_iter()
    .sum();
    assert_eq!(evaluated, 5);
    // The right password makes no difference now, and neither does another worker.
    let retry_after = blocked(&shared_guard(&config).await, 99, "owner").await;
    assert!(is_about(retry_after, MINUTE), "{retry_after:?}");
}

#[tokio::test]
async fn an_address_that_fails_is_blocked_at_every_account_and_longer_each_time() {
    let milliseconds = Duration::from_millis;
    let config = LoginConfig { blocks: [300, 600, 1200].map(milliseconds).to_vec(), ..settings() };
    let guard = shared_guard(&config).await;
    for expected in [300, 600, 1200, 1200] {
        let retry_after = fail_until_blocked(&guard, 1, "somebody").await;
        assert!(is_about(retry_after, milliseconds(expected)), "{retry_after:?} instead of {expected} ms");
        blocked(&guard, 1, "somebody else").await;
        admitted(&guard, 2, "somebody else").await.withdrawn().await;
    }
}

#[tokio::test]
async fn accounts_are_tried_one_after_the_other_no_better_than_one() {
    let guard = shared_guard(&settings()).await;
    for number in 0..5 {
        fail(&guard, 1, &format!("account {number}"), 1).await;
    }
    blocked(&guard, 1, "account 5").await;
}

#[tokio::test]
async fn a_success_ends_the_failures_in_a_row() {
    let guard = shared_guard(&settings()).await;
    for _ in 0..5 {
        fail(&guard, 1, "owner", 4).await;
        admitted(&guard, 1, " Owner ").await.succeeded().await;
    }
    // From elsewhere too: the count of the account began anew.
    fail(&guard, 2, "owner", 4).await;
    admitted(&guard, 2, "owner").await.succeeded().await;
}

#[tokio::test]
async fn an_account_of_ones_own_gives_no_more_guesses_at_others() {
    let guard = shared_guard(&settings()).await;
    let mut guesses = 0;
    'attack: for number in 0..20 {
        for _ in 0..2 {
            match guard.begin(client(1), &format!("victim {number}")).await {
                LoginVerdict::Admitted(attempt) => attempt.failed(),
                _ => break 'attack,
            }
            guesses += 1;
        }
        match guard.begin(client(1), "attacker").await {
            LoginVerdict::Admitted(attempt) => attempt.succeeded().await,
            _ => break,
        }
    }
    assert_eq!(guesses, 5);
}

#[tokio::test]
async fn strangers_do_not_lock_an_owner_out_where_he_has_logged_in() {
    let guard = shared_guard(&settings()).await;
    admitted(&guard, 1, "owner").await.succeeded().await;
    fail(&guard, 2, "owner", 5).await;
    blocked(&guard, 3, "owner").await;
    admitted(&guard, 1, "owner").await.succeeded().await;
    // That he gets in does not give strangers more guesses.
    blocked(&guard, 3, "owner").await;
    // What he gets wrong himself counts as it does for everybody.
    fail(&guard, 1, "owner", 5).await;
    blocked(&guard, 1, "owner").await;
}

#[tokio::test]
async fn a_stranger_blocks_an_account_no_longer_than_himself() {
    let blocks = [Duration::from_millis(300), MINUTE].to_vec();
    let guard = shared_guard(&LoginConfig { blocks, ..settings() }).await;
    let (fresh, known_for_worse) = (1, 2);
    fail_until_blocked(&guard, known_for_worse, "another").await;
    fail_until_blocked(&guard, fresh, "owner").await;
    // The account has been blocked before, and so has this address: a minute for both.
    let of_address = fail_until_blocked(&guard, known_for_worse, "owner").await;
    assert!(is_about(of_address, MINUTE) && is_about(blocked(&guard, 3, "owner").await, MINUTE), "{of_address:?}");
    // An address that is new blocks a much tried account for the shortest time only.
    let guard =
        shared_guard(&LoginConfig { blocks: [Duration::from_millis(300), MINUTE].to_vec(), ..settings() }).await;
    for address in 10..14 {
        let of_account = fail_until_blocked(&guard, address, "owner").await;
        assert!(of_account <= Duration::from_millis(300), "{of_account:?}");
    }
}

#[tokio::test]
async fn what_is_withdrawn_or_succeeds_lifts_the_block_it_made() {
    let guard = shared_guard(&settings()).await;
    for _ in 0..20 {
        admitted(&guard, 1, "owner").await.withdrawn().await;
    }
    fail(&guard, 1, "owner", 4).await;
    let fifth = admitted(&guard, 1, "owner").await;
    blocked(&guard, 1, "owner").await;
    fifth.withdrawn().await;
    let fifth = admitted(&guard, 1, "owner").await;
    blocked(&guard, 2, "owner").await;
    fifth.succeeded().await;
    fail(&guard, 1, "owner", 4).await;
    drop(admitted(&guard, 1, "owner").await);
    let retry_after = blocked(&guard, 1, "owner").await;
    assert!(is_about(retry_after, MINUTE), "a block that was lifted made the next one longer: {retry_after:?}");
}

#[tokio::test]
async fn without_redis_nobody_is_admitted_and_nobody_waits() {
    let redis = Redis::start();
    let config = LoginConfig { timeout: Duration::from_millis(25), ..settings() };
    let guard = guard(&config, &redis.unix_url()).await;
    let attempt = admitted(&guard, 1, "owner").await;
    redis.stop();
    let begin = Instant::now();
    assert!(matches!(guard.begin(client(1), "owner").await, LoginVerdict::Unavailable));
    assert!(begin.elapsed() < Duration::from_secs(1));
    attempt.succeeded().await;
    redis.kill();
    assert!(matches!(guard.begin(client(1), "owner").await, LoginVerdict::Unavailable));
}

#[tokio::test]
async fn every_record_has_a_lifetime() {
    let redis = Redis::start();
    let config = settings();
    let guard = guard(&config, &redis.unix_url()).await;
    fail(&guard, 1, "owner", 3).await;
    admitted(&guard, 1, "owner").await.withdrawn().await;
    admitted(&guard, 1, "owner").await.succeeded().await;
    fail(&guard, 1, "owner", 1).await;
    admitted(&guard, 1, "owner").await.succeeded().await;
    fail(&guard, 2, "owner", 5).await;
    let keys = redis.command(&["KEYS", "*"]);
    assert_eq!(keys.lines().count(), 5, "{keys}");
    for key in keys.lines() {
        let lifetime: i64 = redis.command(&["PTTL", key]).trim().parse().unwrap();
        assert!(lifetime > 0 && lifetime <= crate::login::KNOWN_MS, "{key}: {lifetime}");
        assert!(!key.contains("owner") && !key.contains("10.0.0"), "{key}");
    }
}

#[tokio::test]
async fn records_of_one_attempt_are_on_one_node_of_a_cluster() {
    let cluster = RedisCluster::start();
    let guard = guard(&settings(), &cluster.url()).await;
    for address in 0..20 {
        admitted(&guard, address, &format!("account {address}")).await.succeeded().await;
    }
}
