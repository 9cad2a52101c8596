//! Limits over all workers of a real cluster: exact, cheap for the denied, back in time.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use test_support::http::{Connection, Request};
use test_support::{Endpoint, Redis, eventually};

use crate::cluster::Cluster;

/// Sends `count` requests at once, each on a connection of its own, and returns the statuses.
fn burst(cluster: &Cluster, count: usize, request: &Request) -> Vec<u16> {
    let endpoint = Endpoint::from(cluster.address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(Connection::open(&endpoint).await.unwrap());
        }
        let statuses = Mutex::new(Vec::new());
        let exchanges = connections.into_iter().map(|mut connection| {
            let statuses = &statuses;
            async move {
                let answer = connection.exchange(request).await.unwrap();
                if answer.status == 429 {
                    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
                    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
                    assert!(answer.text().contains("quota-exceeded"), "{}", answer.text());
                }
                statuses.lock().unwrap().push(answer.status);
            }
        });
        futures_util::future::join_all(exchanges).await;
        statuses.into_inner().unwrap()
    })
}

/// On a machine that is busy with other tests a wait of 25 ms is no proof that Redis is away.
fn policy(limit: u32, window: &str) -> String {
    format!(
        "[http]\ntrusted_proxies = [\"127.0.0.1/32\"]\n[rate_limit]\ntimeout = \"5s\"\n\
         [[rate_limit.policy]]\nname = \"test\"\npaths = [\"/api/**\"]\nlimit = {limit}\nwindow = \"{window}\"\n"
    )
}

fn from_client(path: &str, number: usize) -> Request {
    Request::get(path).header("x-forwarded-for", &format!("203.0.{}.{}", number / 250, number % 250 + 1))
}

#[test]
fn exactly_the_limit_is_admitted_with_any_number_of_workers() {
    for workers in [1, 2, 4, 8] {
        let cluster = Cluster::builder().workers(workers).configuration(&policy(100, "1h")).start();
        // One run per client: each begins with an untouched window.
        for run in 0..20 {
            let statuses = burst(&cluster, 500, &from_client("/api/v1/categories", run));
            let admitted = statuses.iter().filter(|status| **status == 200).count();
            let refused = statuses.iter().filter(|status| **status == 429).count();
            assert_eq!((admitted, refused), (100, 400), "{workers} workers, run {run}");
        }
    }
}

#[test]
fn a_blocked_client_costs_no_redis_work_and_is_let_in_when_its_window_ends() {
    let redis = Redis::start();
    let cluster = Cluster::builder()
        .workers(1)
        .environment("REDIS_URL", &redis.unix_url())
        .configuration(&policy(5, "4s"))
        .start();
    let request = from_client("/api/v1/categories", 0);
    eventually(Duration::from_secs(10), || cluster.send(&request).status == 429);
    let blocked = cluster.send(&request);
    assert_eq!(blocked.status, 429);
    let scripts = || redis.calls("evalsha") + redis.calls("eval");
    let cached = || cluster.total(|name| name.starts_with("bellwether_cache_requests_total"));
    let (cache_before, database_before) = (cached(), cluster.total(|name| name.contains("db_client_operation")));
    for _ in 0..20 {
        assert_eq!(cluster.send(&request).status, 429);
    }
    assert_eq!(cached(), cache_before, "a denied request does not look into the cache");
    assert_eq!(cluster.total(|name| name.contains("db_client_operation")), database_before, "nor into the database");
    let checks = || cluster.total(|name| name.starts_with("bellwether_ratelimit_redis_calls_total"));
    let (before, checked_before, mut denied, mut first) = (scripts(), checks(), 0_u32, None);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) && first.is_none() {
        match cluster.send(&request).status {
            429 => denied += 1,
            200 => first = Some(start.elapsed()),
            other => panic!("status {other}"),
        }
    }
    let first = first.expect("the window ends");
    // One call a second confirms the denial, and one admits the first request of the new window.
    let checked = checks() - checked_before;
    assert!(checked <= (first.as_secs() + 2) as f64, "{denied} denials made {checked} calls of the limiter");
    // And each second the cache's watchdog looks at its lanes and for overdue changes, and the worker says that it lives.
    assert!(denied > 20, "only {denied} denied in {first:?}");
    assert!(scripts() - before <= 1 + 4 * (first.as_secs() + 2), "{denied} denials made {} calls", scripts() - before);
}

#[test]
fn limits_are_announced_and_health_is_never_limited() {
    let cluster = Cluster::builder().workers(1).configuration(&policy(2, "1h")).start();
    let request = from_client("/api/v1/categories", 0);
    let answer = cluster.send(&request);
    assert_eq!(answer.header("ratelimit-policy"), Some("\"test\";q=2;w=3600"));
    assert!(answer.header("ratelimit").unwrap().starts_with("\"test\";r=1;t="), "{:?}", answer.headers);
    cluster.send(&request);
    assert_eq!(cluster.send(&request).status, 429);
    for path in ["/livez", "/readyz", "/health", "/up"] {
        let answer = cluster.send(&from_client(path, 0));
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("ratelimit"), None, "{path}");
    }
}

#[test]
fn a_policy_that_counts_by_user_follows_the_token_and_not_the_address() {
    let configuration = "[http]\ntrusted_proxies = [\"127.0.0.1/32\"]\n\
         [[rate_limit.policy]]\nname = \"user\"\npaths = [\"/api/**\"]\nkey = \"user\"\nlimit = 3\nwindow = \"1h\"\n\
         algorithm = \"gcra\"\n";
    let cluster = Cluster::builder().workers(2).configuration(configuration).start();
    let bearer = format!("Bearer {}", cluster.token());
    let known = |number| from_client("/api/v1/categories", number).header("authorization", &bearer);
    let statuses: Vec<u16> = (0..5).map(|number| cluster.send(&known(number)).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    // A token that is not valid is no user: its address counts, as that of anybody without one.
    let forged = |number| from_client("/api/v1/categories", number).header("authorization", "Bearer x.y.z");
    let statuses: Vec<u16> = (0..5).map(|_| cluster.send(&forged(9)).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(cluster.send(&forged(10)).status, 200);
}

#[test]
fn networks_are_refused_or_never_limited_and_older_headers_can_be_had() {
    let configuration = "[http]\ntrusted_proxies = [\"127.0.0.1/32\"]\n\
         [rate_limit]\nheaders = [\"draft-6\", \"legacy\"]\nallow = [\"203.0.0.1\"]\ndeny = [\"203.0.0.0/29\"]\n\
         [[rate_limit.policy]]\nname = \"test\"\npaths = [\"/api/**\"]\nlimit = 1\nwindow = \"1h\"\n";
    let cluster = Cluster::builder().workers(1).configuration(configuration).start();
    for _ in 0..3 {
        assert_eq!(cluster.send(&from_client("/api/v1/categories", 0)).status, 200, "allowed, also if denied");
    }
    assert_eq!(cluster.send(&from_client("/api/v1/categories", 1)).status, 403);
    assert_eq!(cluster.send(&from_client("/livez", 1)).status, 200);
    let answer = cluster.send(&from_client("/api/v1/categories", 20));
    assert_eq!(answer.status, 200);
    assert_eq!((answer.header("ratelimit-limit"), answer.header("ratelimit-remaining")), (Some("1"), Some("0")));
    assert!(answer.header("x-ratelimit-reset").unwrap().parse::<u64>().unwrap() > 1_700_000_000);
    assert_eq!(answer.header("ratelimit"), None);
}
