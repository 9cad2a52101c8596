//! What holds while Redis answers.

use std::time::{Duration, Instant};

use test_support::{Redis, RedisCluster};

use super::*;

/// How many of `requests` checks, spread over `workers`, are let through.
fn admitted_by(workers: u32, requests: usize, config: &Config, url: &str) -> usize {
    let gate = Gate::new(workers);
    let counts = on_workers(workers, async |share| {
        let (limiter, _) = limiter(Config { share, ..config.clone() }, url).await;
        gate.pass().await;
        let decisions = check_at_once(&limiter, client(1), requests / workers as usize).await;
        let asked_redis = |decision: &Decision| decision.source() != Source::Local;
        assert!(decisions.iter().all(asked_redis), "decided without redis");
        allowed(&decisions)
    });
    counts.into_iter().sum()
}

#[test]
fn a_hundred_of_five_hundred_parallel_requests_pass_whatever_the_number_of_workers() {
    for workers in [1, 2, 4, 8] {
        for run in 0..20 {
            let config = patient(vec![policy("hundred", 100, LONG)]);
            let admitted = admitted_by(workers, 504, &config, &Redis::shared().unix_url());
            assert_eq!(admitted, 100, "run {run} with {workers} workers");
        }
    }
}

#[test]
fn of_a_limit_of_one_exactly_one_passes() {
    for _ in 0..20 {
        let config = patient(vec![policy("one", 1, LONG)]);
        assert_eq!(admitted_by(8, 64, &config, &Redis::shared().unix_url()), 1);
    }
}

#[test]
fn a_limit_of_none_lets_nobody_pass() {
    let config = patient(vec![policy("none", 0, LONG)]);
    assert_eq!(admitted_by(2, 64, &config, &Redis::shared().unix_url()), 0);
}

#[test]
fn on_a_cluster_the_limits_hold_on_every_lane() {
    let cluster = RedisCluster::start();
    let config = patient(vec![policy("hundred", 100, LONG), policy("more", 120, LONG)]);
    assert_eq!(admitted_by(4, 504, &config, &cluster.url()), 100);
    let passed = on_workers(2, async |share| {
        let (limiter, _) = limiter(Config { share, ..config.clone() }, &cluster.url()).await;
        let mut checks = JoinSet::new();
        for number in 0..20_000 {
            let limiter = limiter.clone();
            checks.spawn(async move { check(&limiter, client(number % 90 + 1000)).await });
        }
        let decisions = checks.join_all().await;
        assert!(decisions.iter().all(|decision| decision.source() != Source::Local));
        allowed(&decisions)
    });
    assert_eq!(passed.iter().sum::<usize>(), 90 * 100);
    assert!(cluster.nodes().iter().all(|node| node.calls("evalsha") > 0));
}

#[tokio::test]
async fn several_policies_are_all_or_nothing_and_only_the_tight_one_is_blamed() {
    let (limiter, registry) = limiter(
        patient(vec![policy("wide", 50, LONG), policy("tight", 7, LONG), policy("middle", 20, LONG)]),
        &Redis::shared().unix_url(),
    )
    .await;
    let decisions = check_at_once(&limiter, client(1), 40).await;
    assert_eq!(allowed(&decisions), 7);
    let left = |decision: &Decision| decision.policies().iter().map(|state| state.remaining).collect::<Vec<_>>();
    assert_eq!(left(&decisions[0]), [49, 6, 19]);
    assert_eq!(left(&decisions[6]), [43, 0, 13]);
    assert_eq!(left(&decisions[39]), [43, 0, 13], "denied requests cost the others nothing");
    assert!(!decisions[39].is_allowed());
    let blamed: Vec<_> = crate::headers::violated(limiter.policies(), &decisions[39]).collect();
    assert_eq!(blamed, ["tight"]);
    let count = |policy, verdict| {
        let labels = format!("{{policy=\"{policy}\",source=\"redis\",verdict=\"{verdict}\"}}");
        counted(&registry, &format!("bellwether_ratelimit_decisions_total{labels}"))
    };
    assert_eq!((count("wide", "allowed"), count("wide", "denied")), (7, 0));
    assert_eq!((count("tight", "allowed"), count("tight", "denied")), (7, 33));
}

#[tokio::test]
async fn the_first_ones_of_a_batch_pass_and_see_the_limit_count_down() {
    let (limiter, _) = limiter(patient(vec![policy("ten", 10, LONG)]), &Redis::shared().unix_url()).await;
    for round in 0..3 {
        let decisions = check_at_once(&limiter, client(round), 25).await;
        for (number, decision) in decisions.iter().enumerate() {
            assert_eq!(decision.is_allowed(), number < 10, "number {number}");
            assert_eq!(decision.policies()[0].remaining, 9_u64.saturating_sub(number as u64));
        }
    }
}

#[tokio::test]
async fn identities_and_policies_do_not_share_counters_unless_they_should() {
    let redis = Redis::shared();
    let mut catalogue = policy("catalogue", 3, LONG);
    catalogue.paths = Some(vec!["/products/**".to_owned()]);
    let config = patient(vec![policy("all", 5, LONG), catalogue]);
    let (limiter, _) = limiter(config, &redis.unix_url()).await;
    let all = limiter.policies().matching("GET", "/orders");
    let both = limiter.policies().matching("GET", "/products/1");
    let of_both = request_under(&limiter, both, client(1));
    // Two groups of one identity in one batch share the counter of `all`.
    let (a, b) = tokio::join!(
        async {
            let mut passed = 0;
            for decision in [limiter.check(&of_both).await, limiter.check(&of_both).await] {
                passed += usize::from(decision.is_allowed());
            }
            passed
        },
        check_set(&limiter, all, client(1), 10),
    );
    assert_eq!(a + b, 5);
    assert_eq!(check_set(&limiter, both, client(2), 10).await, 3);
    assert_eq!(check_set(&limiter, all, client(2), 10).await, 2);
}

async fn check_set(limiter: &Limiter, set: crate::PolicySet, address: IpAddr, requests: usize) -> usize {
    let mut checks = JoinSet::new();
    for _ in 0..requests {
        let limiter = limiter.clone();
        checks.spawn(async move { limiter.check(&request_under(&limiter, set, address)).await });
    }
    allowed(&checks.join_all().await)
}

#[tokio::test]
async fn a_blocked_client_causes_no_call_and_is_let_in_when_the_window_ends() {
    let redis = Redis::start();
    let window = Duration::from_millis(700);
    let (limiter, _) = limiter(patient(vec![policy("few", 5, window)]), &redis.unix_url()).await;
    let asked_about = request(&limiter, client(1));
    for round in 0..4 {
        let (asked, decision) = loop {
            let asked = Instant::now();
            let last = check_at_once(&limiter, client(1), 6).await.into_iter().next_back().unwrap();
            // The first window may be nearly over when it is first seen.
            if last.retry_after().is_some_and(|wait| wait > window / 4) {
                break (asked, last);
            }
        };
        // Redis looked at its clock between the two, so that the window ends between these two.
        let retry_after = decision.retry_after().unwrap();
        let (earliest_end, latest_end) = (asked + retry_after, Instant::now() + retry_after);
        let calls = redis.calls("evalsha") + redis.calls("eval");
        while let Some(denial) = limiter.try_check(&asked_about) {
            assert_eq!((denial.is_allowed(), denial.source()), (false, Source::DenialCache));
            tokio::task::yield_now().await;
        }
        assert!(Instant::now() >= earliest_end, "forgotten too early");
        assert_eq!(redis.calls("evalsha") + redis.calls("eval"), calls, "round {round}");
        loop {
            let asked = Instant::now();
            if check(&limiter, client(1)).await.is_allowed() {
                break;
            }
            assert!(
                asked < latest_end + Duration::from_millis(50),
                "not let in {:?} after the end",
                latest_end.elapsed()
            );
        }
    }
}

#[tokio::test]
async fn requests_that_wait_together_go_in_one_call() {
    let redis = Redis::start();
    let (limiter, registry) = limiter(patient(vec![policy("many", 1000, LONG)]), &redis.unix_url()).await;
    check(&limiter, client(0)).await;
    let before = redis.calls("evalsha");
    let mut checks = JoinSet::new();
    for number in 0..500 {
        let limiter = limiter.clone();
        checks.spawn(async move { check(&limiter, client(number % 50)).await });
    }
    assert_eq!(allowed(&checks.join_all().await), 500);
    let calls = redis.calls("evalsha") - before;
    assert!(calls <= 3, "{calls} calls");
    let answered = counted(&registry, "bellwether_ratelimit_redis_calls_total{result=\"answered\",script=\"check\"}");
    assert_eq!(answered, calls + 1);
}

#[tokio::test]
async fn more_identities_than_fit_one_call_are_all_answered() {
    let (limiter, _) = limiter(patient(vec![policy("one", 1, LONG)]), &Redis::shared().unix_url()).await;
    let mut checks = JoinSet::new();
    for number in 0..10_000 {
        let limiter = limiter.clone();
        checks.spawn(async move { check(&limiter, client(number % 5000)).await });
    }
    assert_eq!(allowed(&checks.join_all().await), 5000);
}

#[tokio::test]
async fn every_key_has_a_lifetime_and_one_that_lost_it_gets_it_back() {
    let redis = Redis::start();
    let window = Duration::from_secs(60);
    let config = patient(vec![policy("a", 1, window), policy("b", 2, window), policy("c", 1, LONG)]);
    let (limiter, _) = limiter(config.clone(), &redis.unix_url()).await;
    for number in 0..100 {
        check_at_once(&limiter, client(number), 3).await;
    }
    let keys = redis.command(&["KEYS", "*"]);
    assert_eq!(keys.lines().count(), 300);
    for key in keys.lines() {
        let ttl: i64 = redis.command(&["PTTL", key]).parse().unwrap();
        let longest = if key.ends_with(":c") { LONG } else { window };
        assert!(ttl > 0 && ttl <= longest.as_millis() as i64 + 1001, "{key}: {ttl}");
        redis.command(&["PERSIST", key]);
    }
    // Another worker, which remembers no denial, asks again.
    let (limiter, _) = super::limiter(config, &redis.unix_url()).await;
    for number in 0..100 {
        assert!(!check(&limiter, client(number)).await.is_allowed());
    }
    for key in keys.lines() {
        assert!(redis.command(&["PTTL", key]).parse::<i64>().unwrap() > 0, "{key}");
    }
}

#[tokio::test]
async fn a_counter_that_would_live_for_ever_is_found() {
    let redis = Redis::start();
    let (limiter, _) = limiter(patient(vec![policy("p", 5, LONG)]), &redis.unix_url()).await;
    for number in 0..100 {
        redis.command(&["SET", &format!("other:{number}"), ""]);
        check(&limiter, client(number)).await;
    }
    assert_eq!(limiter.find_immortal().await, Ok(None));
    let keys = redis.command(&["KEYS", "*:rl:*"]);
    let key = keys.lines().nth(70).unwrap();
    redis.command(&["PERSIST", key]);
    assert_eq!(limiter.find_immortal().await, Ok(Some(key.to_owned())));
}

#[tokio::test]
async fn keys_are_named_as_promised_and_show_no_address() {
    let redis = Redis::start();
    let config = Config { prefix: "bw".to_owned(), ..patient(vec![policy("catalogue", 9, LONG)]) };
    let (limiter, _) = limiter(config, &redis.unix_url()).await;
    check(&limiter, "192.0.2.1".parse().unwrap()).await;
    let key = redis.command(&["KEYS", "*"]);
    let identity = crate::identity::Identity::of_address("192.0.2.1".parse().unwrap(), &[42; 16]);
    let digits = String::from_utf8(identity.digits().to_vec()).unwrap();
    assert_eq!(key, format!("bw:rl:{{{}}}:{digits}:catalogue", identity.lane()));
    let value: u64 = redis.command(&["GET", &key]).parse().unwrap();
    assert!((1..=8191).contains(&(value >> 40)), "the window's index is part of the value");
    assert_eq!(value & ((1 << 40) - 1), 1, "one request is used");
}

#[tokio::test]
async fn what_is_not_ours_at_a_key_counts_as_nothing() {
    let redis = Redis::start();
    let config = Config { prefix: "bw".to_owned(), ..patient(vec![policy("p", 2, LONG)]) };
    let (limiter, _) = limiter(config, &redis.unix_url()).await;
    check(&limiter, client(1)).await;
    let key = redis.command(&["KEYS", "*"]);
    for spoil in [&["SET", &key, "nonsense"][..], &["DEL", &key], &["SET", &key, "99:1:1"]] {
        redis.command(spoil);
        let decision = check(&limiter, client(1)).await;
        assert_eq!((decision.is_allowed(), decision.source()), (true, Source::Redis), "{spoil:?}");
        assert_eq!(decision.policies()[0].remaining, 1);
    }
}

#[tokio::test]
async fn no_request_notices_that_redis_forgot_the_script() {
    let redis = Redis::start();
    let (limiter, registry) = limiter(patient(vec![policy("p", 30, LONG)]), &redis.unix_url()).await;
    let mut passed = 0;
    for _ in 0..5 {
        redis.command(&["SCRIPT", "FLUSH"]);
        let decisions = check_at_once(&limiter, client(1), 10).await;
        passed += allowed(&decisions);
    }
    assert_eq!(passed, 30);
    assert_eq!(counted(&registry, "bellwether_ratelimit_redis_calls_total{result=\"failed\",script=\"check\"}"), 0);
}

#[tokio::test]
async fn without_a_policy_nothing_is_asked() {
    let redis = Redis::start();
    let mut only_get = policy("get", 1, LONG);
    only_get.methods = vec!["GET".to_owned()];
    let (limiter, _) = limiter(patient(vec![only_get]), &redis.unix_url()).await;
    let calls = redis.calls("evalsha") + redis.calls("eval");
    for _ in 0..10 {
        let none = limiter.policies().matching("POST", "/");
        let decision = limiter.check(&request_under(&limiter, none, client(1))).await;
        assert_eq!((decision.is_allowed(), decision.source()), (true, Source::None));
    }
    assert_eq!(redis.calls("evalsha") + redis.calls("eval"), calls);
    assert!(!limiter.policies().matching("HEAD", "/").is_empty(), "HEAD is no way around a limit on GET");
}

#[tokio::test]
async fn a_check_that_is_given_up_blocks_nobody() {
    let (limiter, _) = limiter(patient(vec![policy("p", 5, LONG)]), &Redis::shared().unix_url()).await;
    for _ in 0..3 {
        let mut abandoned = JoinSet::new();
        let waiting = limiter.clone();
        abandoned.spawn(async move { check(&waiting, client(1)).await });
        tokio::task::yield_now().await;
        abandoned.abort_all();
    }
    let decisions = check_at_once(&limiter, client(1), 10).await;
    assert!((2..=5).contains(&allowed(&decisions)), "{decisions:?}");
}

#[tokio::test]
async fn a_busy_loop_alone_does_not_make_redis_late() {
    let config = Config { timeout: Duration::from_millis(90), ..config(vec![policy("p", 1000, LONG)]) };
    let (limiter, _) = limiter(config, &Redis::shared().unix_url()).await;
    for number in 0..5 {
        let (decision, ()) = tokio::join!(check(&limiter, client(number)), async {
            // Longer than the timeout, once before the call is written and once while its answer lies in the socket.
            for _ in 0..2 {
                std::thread::sleep(Duration::from_millis(250));
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(decision.source(), Source::Redis);
    }
}

#[test]
fn the_limiter_can_be_shared_between_threads() {
    fn assert_send_sync<T: Send + Sync>(_: &T) {}
    fn assert_check_is_send(limiter: &Limiter, request: &Request) {
        assert_send_sync(limiter);
        let check = limiter.check(request);
        fn assert_send<T: Send>(_: &T) {}
        assert_send(&check);
    }
    let _ = assert_check_is_send;
}
