//! Crowds of workers over many windows, judged by a record of every request that passed.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use test_support::{FaultProxy, Redis, RedisCluster, RedisSentinel, eventually_async};

use super::*;
use crate::{identity::Identity, state::settlement::Settlement, window::Grid};

const SECOND: Duration = Duration::from_secs(1);

/// A request that passed.
#[derive(Debug, Clone, Copy)]
struct Passed {
    /// Between these it was decided.
    before: Instant,
    after: Instant,
    /// The same by the clock that Redis reads, in microseconds.
    before_us: u64,
    after_us: u64,
    /// Redis's clock when it was counted.
    counted_us: u64,
}

fn clock_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Asks once, as one of many.
async fn ask(limiter: &Limiter, address: IpAddr) -> Option<Passed> {
    let (before, before_us) = (Instant::now(), clock_us());
    let decision = check(limiter, address).await;
    let counted_us = decision.is_allowed().then(|| decision.states[0].counted_us)?;
    Some(Passed { before, after: Instant::now(), before_us, after_us: clock_us(), counted_us })
}

/// Eight clients of one worker ask without pause until `end`.
async fn hammer(limiter: &Limiter, address: IpAddr, end: Instant) -> Vec<Passed> {
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let limiter = limiter.clone();
        clients.spawn(async move {
            let mut passed = Vec::new();
            while Instant::now() < end {
                passed.extend(ask(&limiter, address).await);
                tokio::task::yield_now().await;
            }
            passed
        });
    }
    clients.join_all().await.concat()
}

/// Workers that hammer together until `end`, on one Redis.
fn crowd(workers: u32, config: &Config, url: &str, address: IpAddr, length: Duration) -> Vec<Passed> {
    let gate = Gate::new(workers);
    let passed = on_workers(workers, async |share| {
        let (limiter, _) = limiter(Config { share, ..config.clone() }, url).await;
        gate.pass().await;
        let passed = hammer(&limiter, address, Instant::now() + length).await;
        limiter.close().await;
        passed
    });
    passed.concat()
}

/// How many passed in each window that was seen from its begin to its end, and no more than the limit in any other.
fn per_whole_window(passed: &[Passed], config: &Config, address: IpAddr) -> Vec<u64> {
    let policy = &config.policies[0];
    let grid = Grid::new(Identity::of_address(address, &config.key).seed(), policy.window.as_micros() as u64);
    let mut counts: HashMap<u64, u64> = HashMap::new();
    for request in passed {
        let index = grid.index_at(request.counted_us);
        *counts.entry(index).or_default() += 1;
        // What was granted ahead was spent in the window that it was counted in.
        let bounds = grid.index_at(request.before_us)..=grid.index_at(request.after_us);
        assert!(bounds.contains(&index), "{request:?} was counted in window {index}");
    }
    assert!(counts.values().all(|&count| count <= policy.limit), "{counts:?}");
    let (first, last) = (counts.keys().min().copied().unwrap(), counts.keys().max().copied().unwrap());
    (first + 1..last).map(|index| counts.get(&index).copied().unwrap_or(0)).collect()
}

/// The most that passed in any window of this length, by Redis's clock.
fn most_in_any_window(passed: &[Passed], window: Duration) -> usize {
    let mut times: Vec<u64> = passed.iter().map(|request| request.counted_us).collect();
    times.sort_unstable();
    let window_us = window.as_micros() as u64;
    let within = |(place, &end): (usize, &u64)| place + 1 - times.partition_point(|&time| time + window_us <= end);
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

/// Whether at most `burst` plus what `rate` allows passed between any two moments. What certainly happened between them counts.
fn assert_envelope(passed: &[Passed], burst: f64, rate: f64) {
    let mut passed = passed.to_vec();
    passed.sort_unstable_by_key(|request| request.after);
    let mut begins: Vec<Instant> = passed.iter().map(|request| request.before).collect();
    begins.sort_unstable();
    for begin in begins {
        let mut count = 0.0;
        for request in passed.iter().filter(|request| request.before >= begin) {
            count += 1.0;
            let most = burst + rate * (request.after - begin).as_secs_f64();
            assert!(count <= most + 1.0, "{count} within {:?}", request.after - begin);
        }
    }
}

#[test]
fn every_whole_window_admits_exactly_the_limit() {
    let config = patient(vec![policy("p", 100, Duration::from_millis(400))]);
    let passed = crowd(8, &config, &Redis::shared().unix_url(), client(1), Duration::from_millis(2_400));
    let counts = per_whole_window(&passed, &config, client(1));
    assert!(counts.len() >= 4 && counts.iter().all(|&count| count == 100), "{counts:?}");
}

#[test]
fn with_leases_every_whole_window_admits_exactly_the_limit_too() {
    let config = patient(vec![Policy { lease: Lease::Auto, ..policy("p", 2_000, SECOND) }]);
    let redis = Redis::start();
    let passed = crowd(8, &config, &redis.unix_url(), client(1), 4 * SECOND);
    let counts = per_whole_window(&passed, &config, client(1));
    assert!(counts.len() >= 2 && counts.iter().all(|&count| count == 2_000), "{counts:?}");
    let calls = redis.calls("evalsha") + redis.calls("eval");
    assert!(calls < passed.len() as u64 / 2, "{calls} calls for {} requests", passed.len());
}

#[test]
fn what_is_granted_and_not_spent_is_lost_to_nobody() {
    let config = patient(vec![Policy { lease: Lease::Auto, ..policy("p", 3_000, LONG) }]);
    let redis = Redis::start();
    let gate = Gate::new(4);
    let passed: usize = on_workers(4, async |share| {
        let (limiter, _) = limiter(Config { share, ..config.clone() }, &redis.unix_url()).await;
        gate.pass().await;
        let (mut passed, mut last, mut asked) = (0, Instant::now(), 0);
        // Longer than anything is granted ahead, and a denial believed.
        while last.elapsed() < Duration::from_millis(2_500) {
            if check(&limiter, client(1)).await.is_allowed() {
                (passed, last) = (passed + 1, Instant::now());
            }
            // Busy now and then, so that more is granted than is spent in its time.
            asked += 1;
            tokio::time::sleep(Duration::from_millis(if asked % 100 < 80 { 0 } else { 25 })).await;
        }
        passed
    })
    .into_iter()
    .sum();
    assert_eq!(passed, 3_000);
}

/// Requests of all workers together come at random, 500 a second.
fn arrivals(workers: u32, config: &Config, length: Duration) -> Vec<Passed> {
    let gate = Gate::new(workers);
    let passed = on_workers(workers, async |share| {
        let (limiter, _) = limiter(Config { share, ..config.clone() }, &Redis::shared().unix_url()).await;
        gate.pass().await;
        let end = Instant::now() + length;
        let (mut passed, mut seed) = (Vec::new(), u64::from(share.index) + 1);
        while Instant::now() < end {
            passed.extend(ask(&limiter, client(2)).await);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = ((seed >> 33) as f64 + 1.0) / f64::from(1_u32 << 31);
            tokio::time::sleep(Duration::from_secs_f64(-uniform.ln() * f64::from(workers) / 500.0)).await;
        }
        passed
    });
    passed.concat()
}

#[test]
fn a_bucket_admits_its_burst_and_its_rate_between_any_two_moments() {
    for lease in [Lease::Off, Lease::Auto] {
        let algorithm = Algorithm::Gcra { burst: Some(20) };
        let config = patient(vec![Policy { algorithm, lease, ..policy("p", 50, SECOND) }]);
        let passed = arrivals(8, &config, 4 * SECOND);
        assert_envelope(&passed, 20.0, 50.0);
        let first = passed.iter().map(|request| request.after).min().unwrap();
        let last = passed.iter().map(|request| request.before).max().unwrap();
        let optimum = 20.0 + 50.0 * (last - first).as_secs_f64();
        assert!(passed.len() as f64 >= 0.98 * optimum, "{} of {optimum:.1} with {lease:?}", passed.len());
    }
}

#[test]
fn no_window_at_all_holds_more_than_a_strict_limit() {
    let strict = [(Algorithm::SlidingWindow, 100), (Algorithm::SlidingLog, 100), (Algorithm::SlidingCounter, 200)];
    for (algorithm, most) in strict {
        let config = patient(vec![Policy { algorithm, ..policy("p", 100, SECOND) }]);
        let grid = Grid::new(Identity::of_address(client(3), &config.key).seed(), 1_000_000);
        let redis = Redis::shared().unix_url();
        let gate = Gate::new(4);
        let passed = on_workers(4, async |share| {
            let (limiter, _) = limiter(Config { share, ..config.clone() }, &redis).await;
            gate.pass().await;
            let mut passed = Vec::new();
            // All come around the end of a window, where a counter of fixed windows lets twice as many pass.
            for _ in 0..2 {
                let now_us = clock_us();
                let until_end = grid.until_end(grid.index_at(now_us), now_us);
                tokio::time::sleep(Duration::from_micros(until_end.saturating_sub(60_000))).await;
                passed.extend(hammer(&limiter, client(3), Instant::now() + Duration::from_millis(300)).await);
            }
            passed
        })
        .concat();
        let found = most_in_any_window(&passed, SECOND);
        assert!(passed.len() >= 100 && found <= most, "{found} with {algorithm:?}");
        if algorithm == Algorithm::SlidingCounter {
            assert_envelope(&passed, 100.0, 100.0);
        }
    }
}

#[test]
fn what_killed_workers_were_granted_is_lost_only_until_the_window_ends() {
    let window = Duration::from_millis(1_500);
    let config = patient(vec![Policy { lease: Lease::Auto, ..policy("p", 3_000, window) }]);
    let (begin, gate) = (Instant::now(), Gate::new(8));
    let redis = Redis::start();
    let passed = on_workers(8, async |share| {
        let (limiter, _) = limiter(Config { share, ..config.clone() }, &redis.unix_url()).await;
        gate.pass().await;
        if share.index >= 3 {
            return hammer(&limiter, client(1), begin + 5 * SECOND).await;
        }
        let passed = hammer(&limiter, client(1), begin + SECOND).await;
        limiter.abandon();
        passed
    })
    .concat();
    let counts = per_whole_window(&passed, &config, client(1));
    // All but one of the windows are whole.
    assert!(counts.iter().all(|&count| count >= 3_000 - 3_000 / 4), "{counts:?}");
    assert!(counts.iter().filter(|&&count| count < 3_000).count() <= 1, "{counts:?}");
}

/// Four workers check 1,500 times each, and about one reply in a hundred gets lost. Returns how many were admitted and how many
/// replies were lost.
fn with_lost_replies(config: &Config, redis: &Redis) -> (u64, u64) {
    let gate = Gate::new(4);
    let counts = on_workers(4, async |share| {
        let proxy = FaultProxy::start(redis.address());
        let (limiter, registry) =
            limiter(Config { share, ..config.clone() }, &format!("redis://{}", proxy.address())).await;
        gate.pass().await;
        let mut admitted = 0;
        for round in 0..1_500 {
            if round % 100 == 50 {
                proxy.drop_reply(1);
            }
            if round % 100 == 70 {
                // Until then it decided alone.
                eventually_async(PATIENCE, async || limiter.is_exact()).await;
            }
            admitted += allowed(&[check(&limiter, client(1)).await]) as u64;
        }
        // What it decided alone is told when Redis has answered again.
        eventually_async(PATIENCE, async || limiter.is_exact()).await;
        check(&limiter, client(2)).await;
        limiter.close().await;
        let lost = "bellwether_ratelimit_redis_calls_total{result=\"indeterminate\",script=\"check\"}";
        (admitted, counted(&registry, lost))
    });
    counts.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn used_by_client(redis: &Redis, config: &Config) -> u64 {
    let identity = Identity::of_address(client(1), &config.key);
    let digits = String::from_utf8(identity.digits().to_vec()).unwrap();
    let key = format!("{}:rl:{{{}}}:{digits}:p", config.prefix, identity.lane());
    // A replica that is about to follow its master may have no answer yet.
    redis.try_command(&["GET", &key]).unwrap_or_default().parse::<u64>().unwrap_or(0) & ((1 << 40) - 1)
}

#[test]
fn a_request_counts_once_whether_its_reply_is_lost_or_redis_was_not_asked() {
    let redis = Redis::start();
    let config = patient(vec![policy("p", 1_000_000, LONG)]);
    let (admitted, lost) = with_lost_replies(&config, &redis);
    assert!(lost >= 10, "{lost}");
    assert_eq!((admitted, used_by_client(&redis, &config)), (6_000, 6_000));
}

#[test]
fn a_closed_policy_admits_no_more_than_its_limit_whatever_replies_are_lost() {
    let redis = Redis::start();
    let config = patient(vec![Policy { on_outage: OnOutage::Closed, ..policy("p", 3_000, LONG) }]);
    let (admitted, lost) = with_lost_replies(&config, &redis);
    assert!(lost >= 10 && admitted <= 3_000 && admitted + lost >= 3_000, "{admitted} and {lost}");
    assert_eq!(used_by_client(&redis, &config), 3_000);
}

#[tokio::test]
async fn a_refund_for_a_window_that_has_ended_changes_nothing_and_makes_no_key() {
    let redis = Redis::start();
    let window = Duration::from_millis(300);
    let config = patient(vec![Policy { count: Count::Failure, ..policy("p", 10, window) }]);
    let (limiter, _) = limiter(config.clone(), &redis.unix_url()).await;
    let slow: Vec<Decision> = check_at_once(&limiter, client(1), 5).await;
    // In the next window, and in one that nobody has counted in yet.
    let grid = Grid::new(Identity::of_address(client(1), &config.key).seed(), window.as_micros() as u64);
    let counted_in = grid.index_at(slow[0].states[0].counted_us);
    eventually_async(PATIENCE, async || grid.index_at(clock_us()) > counted_in).await;
    let next: Vec<Decision> = check_at_once(&limiter, client(1), 3).await;
    slow.iter().for_each(|decision| limiter.answered(decision, true, 0));
    limiter.close().await;
    if grid.index_at(clock_us()) == grid.index_at(next[0].states[0].counted_us) {
        assert_eq!(used_by_client(&redis, &config), 3);
    }
    let key_is_gone = async || redis.command(&["DBSIZE"]) == "0";
    eventually_async(PATIENCE, key_is_gone).await;
    next.iter().for_each(|decision| limiter.answered(decision, true, 0));
    limiter.close().await;
    assert_eq!(redis.command(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn whatever_is_done_every_key_lives_at_most_two_windows_and_ten_seconds() {
    let redis = Redis::start();
    let window = Duration::from_secs(60);
    let algorithms = [
        Algorithm::FixedWindow,
        Algorithm::Gcra { burst: Some(7) },
        Algorithm::SlidingCounter,
        Algorithm::SlidingWindow,
        Algorithm::SlidingLog,
        Algorithm::Pacing { burst: 2, max_delay: SECOND },
        Algorithm::Concurrency,
    ];
    let named = |(number, algorithm): (usize, &Algorithm)| {
        let lease = if matches!(algorithm, Algorithm::FixedWindow) { Lease::Auto } else { Lease::Off };
        Policy { algorithm: *algorithm, lease, ..policy(&format!("p{number}"), 10, window) }
    };
    let policies = algorithms.iter().enumerate().map(named).collect();
    let (limiter, _) = limiter(patient(policies), &redis.unix_url()).await;
    let audit = || {
        for key in redis.command(&["KEYS", "*"]).lines() {
            let lifetime_ms: i64 = redis.command(&["PTTL", key]).parse().unwrap();
            assert!(lifetime_ms > 0 && lifetime_ms <= 2 * 60_000 + 10_000, "{key} lives {lifetime_ms} ms");
        }
    };
    for number in 0..algorithms.len() {
        let set = limiter.policies().named(&format!("p{number}")).unwrap();
        for costs in [1, 3, 11] {
            let request = request_under(&limiter, set, client(1)).costing(costs);
            for _ in 0..15 {
                let decision = limiter.check(&request).await;
                limiter.charge(&decision, 2);
                limiter.refund(&decision);
            }
            audit();
            limiter.close().await;
            audit();
        }
        let request = request_under(&limiter, set, client(1));
        limiter.block(&request, Duration::from_millis(1)).await.unwrap();
        limiter.block(&request, window).await.unwrap();
        audit();
        limiter.check(&request).await;
        limiter.reset(&request).await.unwrap();
        limiter.check(&request).await;
        audit();
    }
    // Settlements too, without anything to change.
    let part = request(&limiter, client(9)).parts[0];
    limiter.shared().state().settlements.push(Settlement { part, units: -5, counted_us: 1 });
    limiter.close().await;
    audit();
}

#[test]
fn a_hot_slot_that_moves_to_another_node_loses_and_gives_away_nothing() {
    let cluster = RedisCluster::start();
    let config = patient(vec![policy("p", 5_000, LONG)]);
    let slot = {
        let tag = format!("{{{}}}", Identity::of_address(client(1), &config.key).lane());
        cluster.nodes()[0].command(&["CLUSTER", "KEYSLOT", &tag]).parse().unwrap()
    };
    let gate = Gate::new(5);
    let counts = on_workers(5, async |share| {
        if share.index == 4 {
            gate.pass().await;
            (0..3).for_each(|turn| cluster.move_slot(slot, turn));
            return (0, true);
        }
        let share = Share { workers: 4, ..share };
        let (limiter, _) = limiter(Config { share, ..config.clone() }, &cluster.url()).await;
        gate.pass().await;
        let (mut admitted, mut is_told) = (0, false);
        let end = Instant::now() + PATIENCE;
        while !is_told && Instant::now() < end {
            let decisions = check_at_once(&limiter, client(1), 4).await;
            admitted += allowed(&decisions);
            is_told = decisions.iter().any(|decision| !decision.is_allowed() && decision.source() != Source::Local);
        }
        (admitted, is_told)
    });
    let admitted: usize = counts.iter().map(|(admitted, _)| admitted).sum();
    assert!(counts.iter().all(|(_, is_told)| *is_told));
    assert_eq!(admitted, 5_000);
}

#[test]
fn after_a_failover_the_replica_counts_on() {
    let sentinel = RedisSentinel::start();
    let config = config(vec![policy("p", 1_000, LONG)]);
    let (counted, failed_over) = (Gate::new(2), Gate::new(2));
    let counts = on_workers(2, async |share| {
        let (limiter, _) = limiter(Config { share, ..config.clone() }, &sentinel.url()).await;
        let before = allowed(&check_at_once(&limiter, client(1), 200).await);
        counted.pass().await;
        if share.index == 0 {
            // What Redis has answered is with the replica before the master dies.
            eventually_async(PATIENCE, async || used_by_client(sentinel.replica(), &config) == 400).await;
            sentinel.fail_over();
        }
        failed_over.pass().await;
        eventually_async(PATIENCE, async || check(&limiter, client(2)).await.source() == Source::Redis).await;
        let after = check_at_once(&limiter, client(1), 600).await;
        assert_source(&after, Source::Redis);
        before + allowed(&after)
    });
    assert_eq!(counts.iter().sum::<usize>(), 1_000);
}
