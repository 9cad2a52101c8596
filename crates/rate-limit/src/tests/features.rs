//! What policies can say beyond a limit and a window.

use std::time::{Duration, Instant};

use test_support::{Redis, RedisCluster, eventually_async};

use super::*;
use crate::{Tier, Verdict};

const SECOND: Duration = Duration::from_secs(1);

/// Redis's own count of what a fixed window has used, over all its counters.
fn used(redis: &Redis) -> u64 {
    let keys = redis.command(&["KEYS", "*"]);
    let used = |key: &str| redis.command(&["GET", key]).parse::<u64>().unwrap() & ((1 << 40) - 1);
    keys.lines().map(used).sum()
}

async fn passed(limiter: &Limiter, address: IpAddr, requests: usize) -> usize {
    allowed(&check_at_once(limiter, address, requests).await)
}

#[test]
fn every_algorithm_admits_exactly_its_limit_to_a_crowd_of_workers() {
    let algorithms = [
        Algorithm::FixedWindow,
        Algorithm::Gcra { burst: None },
        Algorithm::SlidingCounter,
        Algorithm::SlidingWindow,
        Algorithm::SlidingLog,
        Algorithm::Concurrency,
    ];
    for algorithm in algorithms {
        for limit in [1, 40] {
            let config = patient(vec![Policy { algorithm, ..policy("p", limit, LONG) }]);
            let gate = Gate::new(8);
            // Kept until all have been counted: what is held at the same time ends with its decision.
            let decisions: Vec<_> = on_workers(8, async |share| {
                let (limiter, _) = limiter(Config { share, ..config.clone() }, &Redis::shared().unix_url()).await;
                gate.pass().await;
                (check_at_once(&limiter, client(1), 20).await, limiter)
            });
            let sum: usize = decisions.iter().map(|(decisions, _)| allowed(decisions)).sum();
            assert_eq!(sum, limit as usize, "{algorithm:?}");
        }
    }
}

#[test]
fn leases_never_admit_more_than_the_limit_and_give_back_what_is_not_spent() {
    for limit in [100, 5_000] {
        let redis = Redis::start();
        let config = patient(vec![Policy { lease: Lease::Auto, ..policy("p", limit, LONG) }]);
        let end = Instant::now() + SECOND;
        let counts = on_workers(4, async |share| {
            let (limiter, registry) = limiter(Config { share, ..config.clone() }, &redis.unix_url()).await;
            let mut admitted = 0;
            while Instant::now() < end {
                admitted += passed(&limiter, client(1), 4).await;
            }
            limiter.close().await;
            let leased = "bellwether_ratelimit_decisions_total{policy=\"p\",source=\"lease\",verdict=\"allowed\"}";
            (admitted, counted(&registry, leased))
        });
        let admitted: usize = counts.iter().map(|(admitted, _)| admitted).sum();
        assert!(admitted <= limit as usize, "{admitted} of {limit}");
        assert_eq!(used(&redis), admitted as u64, "what was granted and not spent came back");
        let leased: u64 = counts.iter().map(|(_, leased)| leased).sum();
        assert!(limit == 100 || leased > 500, "{leased} of {admitted} were leased");
    }
}

#[tokio::test]
async fn what_is_granted_to_a_client_that_stays_away_comes_back_by_itself() {
    let redis = Redis::start();
    let config = patient(vec![Policy { lease: Lease::Auto, ..policy("p", 1_000_000, LONG) }]);
    let (limiter, _) = limiter(config, &redis.unix_url()).await;
    let mut admitted = 0;
    eventually_async(PATIENCE, async || {
        admitted += passed(&limiter, client(1), 4).await as u64;
        used(&redis) > admitted
    })
    .await;
    eventually_async(PATIENCE, async || used(&redis) == admitted).await;
}

#[tokio::test]
async fn units_at_the_same_time_are_free_again_when_their_decision_is_dropped() {
    let redis = Redis::start();
    let policy = Policy { algorithm: Algorithm::Concurrency, ..policy("p", 3, Duration::from_secs(60)) };
    let (first, _) = limiter(patient(vec![policy.clone()]), &redis.unix_url()).await;
    let (second, _) = limiter(Config { prefix: "bw".to_owned(), ..patient(vec![policy]) }, &redis.unix_url()).await;
    drop(first);
    let mut held = check_at_once(&second, client(1), 5).await;
    assert_eq!(allowed(&held), 3);
    assert!(!check(&second, client(1)).await.is_allowed());
    held.retain(|decision| !decision.is_allowed());
    eventually_async(PATIENCE, async || check(&second, client(1)).await.is_allowed()).await;
}

#[tokio::test]
async fn units_of_a_worker_that_vanished_are_free_after_the_window() {
    let redis = Redis::start();
    let policy = Policy { algorithm: Algorithm::Concurrency, ..policy("p", 2, Duration::from_secs(4)) };
    let config = Config { prefix: "bw".to_owned(), ..patient(vec![policy]) };
    let (vanishing, _) = limiter(config.clone(), &redis.unix_url()).await;
    let held = check_at_once(&vanishing, client(1), 2).await;
    assert_eq!(allowed(&held), 2);
    let (staying, _) = limiter(config, &redis.unix_url()).await;
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        assert!(!check(&staying, client(1)).await.is_allowed(), "it is held on to for longer than its window");
    }
    // Its tasks, which hold on to what it has, end with it; nothing is given back.
    std::mem::forget(held);
    let gone = Instant::now();
    vanishing.abandon();
    eventually_async(PATIENCE, async || check(&staying, client(1)).await.is_allowed()).await;
    assert!(gone.elapsed() < Duration::from_secs(15), "{:?}", gone.elapsed());
}

#[tokio::test]
async fn pacing_holds_up_who_comes_early_and_denies_who_would_wait_too_long() {
    let algorithm = Algorithm::Pacing { burst: 2, max_delay: Duration::from_secs(3) };
    let policy = Policy { algorithm, ..policy("p", 60, Duration::from_secs(60)) };
    let (limiter, _) = limiter(patient(vec![policy]), &Redis::shared().unix_url()).await;
    let decisions = check_at_once(&limiter, client(1), 8).await;
    assert_eq!(allowed(&decisions), 5);
    let delays: Vec<_> = decisions[..5].iter().map(|decision| decision.delay().as_secs_f64().ceil()).collect();
    assert_eq!(delays, [0.0, 0.0, 1.0, 2.0, 3.0]);
}

#[tokio::test]
async fn shadowed_policies_count_and_report_and_deny_nobody() {
    let policies = vec![Policy { shadow: true, ..policy("watched", 2, LONG) }, policy("enforced", 5, LONG)];
    let (limiter, registry) = limiter(patient(policies), &Redis::shared().unix_url()).await;
    let decisions = check_at_once(&limiter, client(1), 8).await;
    assert_eq!(allowed(&decisions), 5);
    assert!(decisions[7].violated().all(|state| limiter.policies().name(state.policy) == "enforced"));
    let labels = "{policy=\"watched\",source=\"redis\",verdict=\"shadow_denied\"}";
    assert_eq!(counted(&registry, &format!("bellwether_ratelimit_decisions_total{labels}")), 3);
}

#[tokio::test]
async fn a_tier_has_its_own_limit_and_one_has_none() {
    let tiers = vec![("pro".to_owned(), Tier::Limit(6)), ("partner".to_owned(), Tier::Unlimited)];
    let (limiter, _) =
        limiter(patient(vec![Policy { tiers, ..policy("p", 2, LONG) }]), &Redis::shared().unix_url()).await;
    assert_eq!(limiter.policies().after_authentication(), limiter.policies().all());
    let ask = async |tier, number| {
        let subject = Subject { tier, ..Subject::of_address(client(number)) };
        let mut passed = 0;
        for _ in 0..10 {
            let request = limiter.request(limiter.policies().all(), &subject);
            passed += usize::from(limiter.check(&request).await.is_allowed());
        }
        passed
    };
    assert_eq!((ask(None, 1).await, ask(Some("pro"), 2).await, ask(Some("partner"), 3).await), (2, 6, 10));
    assert_eq!(ask(Some("unheard-of"), 4).await, 2);
}

#[tokio::test]
async fn a_request_takes_what_it_costs_and_what_can_never_pass_is_told_so() {
    let (limiter, _) =
        limiter(patient(vec![Policy { cost: 2, ..policy("p", 9, LONG) }]), &Redis::shared().unix_url()).await;
    let costing = |cost| request(&limiter, client(1)).costing(cost);
    assert!(limiter.check(&costing(3)).await.is_allowed());
    let decision = limiter.check(&costing(2)).await;
    assert_eq!((decision.is_allowed(), decision.policies()[0].remaining), (false, 3));
    assert!(limiter.check(&costing(1)).await.is_allowed(), "who takes less passes all the same");
    let decision = limiter.check(&costing(5)).await;
    assert_eq!((decision.verdict(), decision.retry_after()), (Verdict::Denied, None));
}

#[tokio::test]
async fn answers_that_do_not_count_are_given_back_and_charges_count_more() {
    let redis = Redis::start();
    let (limiter, _) =
        limiter(patient(vec![Policy { count: Count::Failure, ..policy("p", 5, LONG) }]), &redis.unix_url()).await;
    let decisions = check_at_once(&limiter, client(1), 5).await;
    assert!(!check(&limiter, client(1)).await.is_allowed(), "all count until they are answered");
    decisions[..3].iter().for_each(|decision| limiter.answered(decision, true, 0));
    limiter.answered(&decisions[3], false, 0);
    eventually_async(PATIENCE, async || used(&redis) == 2).await;
    let decision = eventually_async(PATIENCE, async || {
        let decision = check(&limiter, client(1)).await;
        decision.is_allowed().then_some(decision)
    })
    .await;
    limiter.answered(&decision, false, 40);
    eventually_async(PATIENCE, async || used(&redis) == 43).await;
    eventually_async(PATIENCE, async || !check(&limiter, client(1)).await.is_allowed()).await;
}

#[tokio::test]
async fn a_block_and_its_end_reach_every_worker_at_once() {
    let redis = Redis::start();
    let policies =
        vec![policy("window", 5, LONG), Policy { algorithm: Algorithm::SlidingLog, ..policy("log", 50, LONG) }];
    let config = Config { prefix: "bw".to_owned(), ..patient(policies) };
    let (one, _) = limiter(config.clone(), &redis.unix_url()).await;
    let (other, _) = limiter(config, &redis.unix_url()).await;
    let request = request(&one, client(1));
    // Both hear of changes.
    eventually_async(PATIENCE, async || redis.command(&["PUBSUB", "NUMSUB", "bw:rl:ctl"]).ends_with('2')).await;
    assert!(other.check(&request).await.is_allowed());
    one.block(&request, Duration::from_secs(600)).await.unwrap();
    let decision = eventually_async(PATIENCE, async || {
        let decision = other.check(&request).await;
        (!decision.is_allowed()).then_some(decision)
    })
    .await;
    assert!(decision.retry_after().is_some_and(|wait| wait > Duration::from_secs(500)), "{decision:?}");
    let peeked = other.peek(&request).await.unwrap();
    assert!(peeked.iter().all(|state| state.violated && state.remaining == 0));
    let blocked = other.blocked(&request).await.unwrap();
    assert!(!blocked.is_empty() && blocked.iter().all(|(_, left)| *left > Duration::from_secs(500)), "{blocked:?}");
    // The best of a few: a machine that is busy with other things delays the news.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        one.block(&request, Duration::from_secs(600)).await.unwrap();
        eventually_async(PATIENCE, async || !other.check(&request).await.is_allowed()).await;
        let begun = Instant::now();
        one.unblock(&request).await.unwrap();
        eventually_async(PATIENCE, async || other.check(&request).await.is_allowed()).await;
        best = best.min(begun.elapsed());
    }
    assert!(best < Duration::from_millis(500), "denials end by themselves only after a second: {best:?}");
    assert_eq!(passed(&other, client(1), 9).await, 4, "whoever was blocked begins afresh");
    assert!(one.blocked(&request).await.unwrap().is_empty(), "used up is not blocked");
    one.reset(&request).await.unwrap();
    assert_eq!(one.peek(&request).await.unwrap()[0].remaining, 5);
    assert_eq!(passed(&one, client(1), 9).await, 5);
}

#[tokio::test]
async fn without_redis_each_policy_does_what_it_says() {
    let redis = Redis::start();
    redis.kill();
    let says = |name, on_outage| Policy { on_outage, ..policy(name, 3, LONG) };
    let policies = vec![says("open", OnOutage::Open), says("local", OnOutage::Local), says("closed", OnOutage::Closed)];
    let (limiter, _) = limiter_alone(config(policies), &redis.url()).await;
    let under = |name: &str| limiter.policies().named(name).unwrap();
    let ask = async |set, times: usize| {
        let mut verdicts = Vec::new();
        for _ in 0..times {
            verdicts.push(limiter.check(&request_under(&limiter, set, client(1))).await.verdict());
        }
        verdicts
    };
    assert_eq!(ask(under("open"), 9).await, [Verdict::Allowed; 9]);
    assert_eq!(ask(under("closed"), 2).await, [Verdict::Unavailable; 2]);
    let both = ask(under("local").or(under("closed")), 5).await;
    assert_eq!(both, [Verdict::Unavailable; 5], "what is turned away takes nothing");
    assert_eq!(ask(under("local"), 4).await[3], Verdict::Denied);
}

#[tokio::test]
async fn on_a_cluster_what_one_node_admits_and_another_denies_is_given_back() {
    let cluster = RedisCluster::start();
    let by_user = Policy { key: Key::All(vec![KeyPart::User]), ..policy("user", 2, LONG) };
    let (limiter, _) = limiter(patient(vec![policy("address", 50, LONG), by_user]), &cluster.url()).await;
    for number in 0..20 {
        let name = format!("user-{number}");
        let subject = Subject { user: Some(&name), ..Subject::of_address(client(number)) };
        let request = limiter.request(limiter.policies().all(), &subject);
        let mut passed = 0;
        for _ in 0..6 {
            passed += usize::from(limiter.check(&request).await.is_allowed());
        }
        assert_eq!(passed, 2);
        eventually_async(PATIENCE, async || {
            limiter.peek(&request).await.unwrap().iter().any(|state| state.remaining == 48)
        })
        .await;
    }
}
