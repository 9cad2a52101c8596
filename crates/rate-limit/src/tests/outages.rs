//! What holds while Redis does not answer, and when it does again.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use test_support::{FaultProxy, Mode, Redis, eventually_async};

use super::*;

const INDETERMINATE: &str = "bellwether_ratelimit_redis_calls_total{result=\"indeterminate\",script=\"check\"}";

/// Makes Redis unreachable, has `workers` decide on `requests` each for several clients, and returns how many passed
/// for each client.
fn admitted_without_redis(
    redis: &Redis,
    away: impl FnOnce() + Send,
    workers: u32,
    limit: u64,
    clients: u32,
) -> Vec<usize> {
    let away = std::sync::Mutex::new(Some(away));
    let (ready, gone) = (Gate::new(workers), Gate::new(workers));
    let config = config(vec![policy("p", limit, LONG)]);
    let counts = on_workers(workers, async |share| {
        let (limiter, _) = limiter(Config { share, ..config.clone() }, &redis.url()).await;
        ready.pass().await;
        if let Some(away) = away.lock().unwrap().take() {
            away();
        }
        gone.pass().await;
        let mut counts = Vec::new();
        for number in 0..clients {
            let decisions = check_at_once(&limiter, client(number), 2 * limit as usize + 5).await;
            assert_source(&decisions, Source::Local);
            counts.push(allowed(&decisions));
        }
        counts
    });
    (0..clients as usize).map(|number| counts.iter().map(|counts| counts[number]).sum()).collect()
}

#[test]
fn the_parts_of_all_workers_add_up_to_the_limit_when_redis_is_killed() {
    for (workers, limit) in [(8, 100), (8, 10), (8, 3), (3, 100), (1, 7)] {
        let redis = Redis::start();
        let admitted = admitted_without_redis(&redis, || redis.kill(), workers, limit, 20);
        assert_eq!(admitted, vec![limit as usize; 20], "{workers} workers, limit {limit}");
    }
}

#[test]
fn the_parts_of_all_workers_add_up_to_the_limit_when_redis_is_frozen() {
    for (workers, limit) in [(8, 10), (4, 100)] {
        let redis = Redis::start();
        let admitted = admitted_without_redis(&redis, || redis.stop(), workers, limit, 20);
        assert_eq!(admitted, vec![limit as usize; 20], "{workers} workers, limit {limit}");
    }
}

#[test]
fn in_the_window_of_the_change_no_more_than_twice_the_limit_passes() {
    let redis = Redis::start();
    let (used, gone) = (Gate::new(4), Gate::new(4));
    let config = config(vec![policy("p", 40, LONG)]);
    let admitted: usize = on_workers(4, async |share| {
        let (limiter, _) = limiter(Config { share, ..config.clone() }, &redis.url()).await;
        let before = allowed(&check_at_once(&limiter, client(1), 5).await);
        used.pass().await;
        if share.index == 0 {
            redis.kill();
        }
        gone.pass().await;
        before + allowed(&check_at_once(&limiter, client(1), 100).await)
    })
    .into_iter()
    .sum();
    // 5 of each worker's 10 were used before; what a worker has admitted itself counts against its part.
    assert_eq!(admitted, 40);
}

#[tokio::test]
async fn the_parts_add_up_to_the_limit_again_when_every_worker_knows_the_new_number() {
    let redis = Redis::start();
    redis.kill();
    let config = config(vec![policy("p", 100, LONG)]);
    let mut limiters = Vec::new();
    for index in 0..8 {
        // Two were there first, and six came later.
        let share = Share { index, workers: if index < 2 { 2 } else { 8 } };
        limiters.push(limiter_alone(Config { share, ..config.clone() }, &redis.url()).await.0);
    }
    let admitted = async |number| {
        let mut sum = 0;
        for limiter in &limiters {
            sum += allowed(&check_at_once(limiter, client(number), 150).await);
        }
        sum
    };
    assert!(admitted(1).await > 150, "without a word each goes by what it knows");
    (0..).zip(&limiters).for_each(|(index, limiter)| limiter.divide(Share { index, workers: 8 }));
    assert_eq!(admitted(2).await, 100);
    limiters.truncate(2);
    (0..).zip(&limiters).for_each(|(index, limiter)| limiter.divide(Share { index, workers: 2 }));
    assert_eq!(allowed(&check_at_once(&limiters[0], client(3), 150).await), 50);
}

#[tokio::test]
async fn a_denial_that_redis_gave_outlives_redis() {
    let redis = Redis::start();
    let (limiter, _) = limiter(patient(vec![policy("p", 3, LONG)]), &redis.url()).await;
    assert_eq!(allowed(&check_at_once(&limiter, client(1), 5).await), 3);
    redis.kill();
    let decision = check(&limiter, client(1)).await;
    assert_eq!((decision.is_allowed(), decision.source()), (false, Source::DenialCache));
}

#[tokio::test]
async fn several_policies_stay_all_or_nothing_without_redis() {
    let redis = Redis::start();
    redis.kill();
    let policies = vec![policy("wide", 100, LONG), policy("tight", 4, LONG)];
    let (limiter, _) = limiter_alone(config(policies), &redis.url()).await;
    assert!(!limiter.is_exact());
    let decisions = check_at_once(&limiter, client(1), 10).await;
    assert_source(&decisions, Source::Local);
    assert_eq!(allowed(&decisions), 4);
    let last = decisions.last().unwrap();
    assert_eq!(last.policies().iter().map(|state| state.remaining).collect::<Vec<_>>(), [96, 0]);
    assert!(last.retry_after().is_some_and(|wait| wait > Duration::ZERO && wait <= LONG));
}

#[tokio::test]
async fn windows_go_on_without_redis() {
    let redis = Redis::start();
    redis.kill();
    let window = Duration::from_millis(300);
    let (limiter, _) = limiter_alone(config(vec![policy("p", 3, window)]), &redis.url()).await;
    for _ in 0..4 {
        let decisions = eventually_async(PATIENCE, async || {
            let decisions = check_at_once(&limiter, client(1), 6).await;
            (allowed(&decisions) > 0).then_some(decisions)
        })
        .await;
        assert_eq!(allowed(&decisions), 3);
    }
}

#[tokio::test]
async fn no_request_waits_long_for_a_redis_that_does_not_answer() {
    let redis = Redis::start();
    let (limiter, registry) = limiter(config(vec![policy("p", 1000, LONG)]), &redis.unix_url()).await;
    check(&limiter, client(0)).await;
    redis.stop();
    let (mut asked, mut waits) = (0, Vec::new());
    eventually_async(PATIENCE, async || {
        asked += 1;
        let start = Instant::now();
        assert_eq!(check(&limiter, client(asked)).await.source(), Source::Local);
        waits.push(start.elapsed());
        // Five until the breaker opens, and then one now and then until the connection is given up.
        counted(&registry, INDETERMINATE) >= 7
    })
    .await;
    waits.sort_unstable();
    let (at_once, waited) = waits.split_at(waits.len() - 7);
    assert!(at_once.len() > 50, "{} of {asked} did not wait", at_once.len());
    // Medians, because a machine that is busy with other things stretches some of them.
    assert!(at_once[at_once.len() / 2] < Duration::from_millis(5), "{at_once:?}");
    assert!((25..100).contains(&waited[3].as_millis()), "{waited:?}");
}

#[tokio::test]
async fn those_who_come_while_a_call_fails_do_not_wait_for_another() {
    let redis = Redis::start();
    let (limiter, registry) = limiter(config(vec![policy("p", 1000, LONG)]), &redis.unix_url()).await;
    check(&limiter, client(0)).await;
    redis.stop();
    let before = counted(&registry, INDETERMINATE);
    let early = limiter.clone();
    let mut checks = JoinSet::new();
    checks.spawn(async move { check(&early, client(1)).await });
    // The early one is sent before the others come.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let late = check_at_once(&limiter, client(2), 10).await;
    assert_source(&late, Source::Local);
    assert_eq!(counted(&registry, INDETERMINATE), before + 1);
}

#[tokio::test]
async fn redis_decides_again_soon_after_its_return() {
    for frozen in [true, false] {
        let redis = Redis::start();
        let proxy = FaultProxy::start(redis.address());
        let (limiter, _) =
            limiter(config(vec![policy("p", 1000, LONG)]), &format!("redis://{}", proxy.address())).await;
        if frozen {
            redis.stop()
        } else {
            redis.kill()
        }
        // Long enough for the waits between attempts to have grown, or for the frozen connection to be given up.
        let attempts = if frozen { 3 } else { 8 };
        eventually_async(PATIENCE, async || {
            assert_eq!(check(&limiter, client(1)).await.source(), Source::Local);
            proxy.traffic().connections >= attempts
        })
        .await;
        if frozen {
            redis.cont()
        } else {
            redis.restart()
        }
        let back = Instant::now();
        eventually_async(PATIENCE, async || {
            let decisions = check_at_once(&limiter, client(2), 20).await;
            decisions.iter().all(|decision| decision.source() == Source::Redis)
        })
        .await;
        // The longest waits of the connection and of the breaker, each below a second, and what a busy machine adds.
        assert!(back.elapsed() < Duration::from_secs(4), "{:?}, frozen: {frozen}", back.elapsed());
    }
}

#[tokio::test]
async fn what_was_admitted_without_redis_counts_when_it_is_back() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::Gcra { burst: None }, Algorithm::SlidingLog] {
        let redis = Redis::start();
        let config = config(vec![Policy { algorithm, ..policy("p", 40, LONG) }]);
        let (limiter, _) = limiter(config, &redis.unix_url()).await;
        // What one of two workers may do without Redis.
        limiter.divide(Share { index: 0, workers: 2 });
        redis.kill();
        eventually_async(PATIENCE, async || !limiter.is_exact()).await;
        let decisions = check_at_once(&limiter, client(1), 25).await;
        assert_source(&decisions, Source::Local);
        assert_eq!(allowed(&decisions), 20);
        // Five of them were none after all.
        decisions.iter().filter(|decision| decision.is_allowed()).take(5).for_each(|decision| limiter.refund(decision));
        redis.restart();
        let peeked = request(&limiter, client(1));
        eventually_async(PATIENCE, async || {
            check(&limiter, client(2)).await;
            let states = limiter.peek(&peeked).await.unwrap_or_default();
            states.first().is_some_and(|state| state.remaining == 25)
        })
        .await;
        assert_eq!(allowed(&check_at_once(&limiter, client(1), 100).await), 25, "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_call_whose_reply_is_lost_counts_once_and_is_not_sent_again() {
    let redis = Redis::start();
    let proxy = FaultProxy::start(redis.address());
    let settings = Config { prefix: "bw".to_owned(), ..patient(vec![policy("p", 1_000_000, LONG)]) };
    let (limiter, registry) = limiter(settings, &format!("redis://{}", proxy.address())).await;
    check(&limiter, client(1)).await;
    let (mut asked, mut lost) = (1_u64, 0_u64);
    for _ in 0..5 {
        let local = eventually_async(PATIENCE, async || {
            // Again and again, because the subscription's replies go through the proxy too.
            proxy.drop_reply(1);
            asked += 1;
            (check(&limiter, client(1)).await.source() == Source::Local).then_some(())
        });
        local.await;
        lost += 1;
        // Requests while there is no connection are not sent, so they are not asked.
        eventually_async(PATIENCE, async || limiter.is_exact()).await;
    }
    assert_eq!(counted(&registry, INDETERMINATE), lost);
    let value: u64 = redis.command(&["GET", &redis.command(&["KEYS", "*"])]).parse().unwrap();
    assert_eq!(value & ((1 << 40) - 1), asked, "each request that reached redis counted once");
}

#[tokio::test]
async fn a_black_hole_is_treated_like_a_dead_redis_and_left_when_it_opens() {
    let redis = Redis::start();
    let proxy = FaultProxy::start(redis.address());
    let (limiter, _) = limiter(config(vec![policy("p", 10, LONG)]), &format!("redis://{}", proxy.address())).await;
    check(&limiter, client(0)).await;
    proxy.set(Mode::BlackHole);
    let decisions = check_at_once(&limiter, client(1), 20).await;
    assert_source(&decisions, Source::Local);
    assert_eq!(allowed(&decisions), 10);
    eventually_async(PATIENCE, async || !limiter.is_exact()).await;
    proxy.set(Mode::Pass);
    eventually_async(PATIENCE, async || check(&limiter, client(2)).await.source() == Source::Redis).await;
}

#[tokio::test]
async fn a_redis_that_refuses_to_write_is_an_outage_and_not_a_denial() {
    let redis = Redis::start();
    let (limiter, registry) = limiter(config(vec![policy("p", 5, LONG)]), &redis.url()).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let decision = check(&limiter, client(1)).await;
    assert_eq!((decision.is_allowed(), decision.source()), (true, Source::Local));
    assert_eq!(counted(&registry, "bellwether_ratelimit_redis_calls_total{result=\"failed\",script=\"check\"}"), 1);
}

#[tokio::test]
async fn any_number_of_clients_without_redis_leaves_the_memory_of_counters_bounded() {
    let redis = Redis::start();
    redis.kill();
    let (limiter, _) = limiter_alone(config(vec![policy("p", 1, LONG)]), &redis.url()).await;
    let mut sources = HashSet::new();
    for number in 0..200_000 {
        let decision = limiter.try_check(&request(&limiter, client(number))).expect("decided at once");
        sources.insert(format!("{:?}", decision.source()));
    }
    assert_eq!(sources.into_iter().collect::<Vec<_>>(), ["Local"]);
    assert!(limiter.remembered() <= 2 * 57_344);
}
