//! The cache over all workers: one load per key, and no worker serves an old price.

use std::time::{Duration, Instant};

use serde_json::Value;
use test_support::http::{Connection, Request, Response};
use test_support::{Endpoint, Load, Redis};

use crate::cluster::Cluster;

/// One keep-alive connection to every worker, found by `x-served-by`.
struct EveryWorker {
    runtime: tokio::runtime::Runtime,
    connections: Vec<Connection>,
}

impl EveryWorker {
    fn of(cluster: &Cluster, workers: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from(cluster.address);
        let mut found = std::collections::BTreeMap::new();
        runtime.block_on(async {
            for _ in 0..500 {
                let mut connection = Connection::open(&endpoint).await.unwrap();
                let answer = connection.exchange(&Request::get("/livez")).await.unwrap();
                let name = answer.header("x-served-by").expect("up exposes the worker").to_owned();
                found.entry(name).or_insert(connection);
                if found.len() == workers {
                    break;
                }
            }
        });
        assert_eq!(found.len(), workers, "not every worker was reached");
        Self { runtime, connections: found.into_values().collect() }
    }

    fn ask(&mut self, request: &Request) -> Vec<Response> {
        let Self { runtime, connections } = self;
        runtime.block_on(async {
            let mut answers = Vec::new();
            for connection in connections {
                answers.push(connection.exchange(request).await.unwrap());
            }
            answers
        })
    }
}

fn patch_price(cluster: &Cluster, token: &str, id: &str, amount: i64) -> Response {
    let request = Request::new("PATCH", &format!("/api/v1/products/{id}"))
        .header("authorization", &format!("Bearer {token}"))
        .json(&format!("{{\"price\":{{\"amount\":{amount}}}}}"));
    cluster.send(&request)
}

fn prices(answers: &[Response]) -> Vec<i64> {
    answers
        .iter()
        .map(|answer| {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text()));
            let product = body["items"].get(0).unwrap_or(&body);
            product["price"]["amount"].as_i64().unwrap_or_else(|| panic!("{body}"))
        })
        .collect()
}

#[test]
fn three_reads_of_one_id_are_one_database_read() {
    let cluster = Cluster::builder().workers(1).start();
    let id = cluster.products(1)[0]["id"].as_str().unwrap().to_owned();
    let before = cluster.product_reads();
    let states: Vec<_> = (0..3)
        .map(|_| {
            let answer = cluster.get(&format!("/api/v1/products/{id}"));
            assert_eq!(answer.status, 200);
            answer.header("cache-status").unwrap().to_owned()
        })
        .collect();
    assert!(states[0].contains("fwd="), "{states:?}");
    assert!(states[1].contains("hit") && states[2].contains("hit"), "{states:?}");
    assert_eq!(cluster.product_reads() - before, 1.0);
}

#[test]
fn after_a_patch_no_worker_serves_the_old_price() {
    let cluster = Cluster::builder().workers(4).start();
    let token = cluster.token();
    let product = &cluster.products(1)[0];
    let (id, slug) = (product["id"].as_str().unwrap(), product["slug"].as_str().unwrap());
    let name = product["name"].as_str().unwrap().to_lowercase().replace(' ', "%20").replace('&', "%26");
    let category = product["category"]["slug"].as_str().unwrap();
    let mut workers = EveryWorker::of(&cluster, 4);
    let paths = [
        format!("/api/v1/products/{id}"),
        format!("/api/v1/products/{slug}"),
        "/api/v1/products?limit=1".to_owned(),
        format!("/api/v1/products?limit=1&category={category}"),
        format!("/api/v1/products?limit=1&q={name}"),
    ];
    let mut lags = Vec::new();
    for round in 0..50 {
        let price = 10_000 + round;
        for path in &paths {
            workers.ask(&Request::get(path));
        }
        let answer = patch_price(&cluster, &token, id, price);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let written = Instant::now();
        for path in [&paths[0], &paths[1], &paths[2], &paths[4]] {
            let lag = loop {
                if prices(&workers.ask(&Request::get(path))).iter().all(|seen| *seen == price) {
                    break written.elapsed();
                }
                assert!(
                    written.elapsed() < Duration::from_millis(100),
                    "{path} is stale after {:?}",
                    written.elapsed()
                );
            };
            lags.push(lag);
        }
    }
    lags.sort();
    println!("all workers up to date after p50 {:?}, p99 {:?}", lags[lags.len() / 2], lags[lags.len() * 99 / 100]);
}

#[test]
fn a_killed_subscription_never_leaves_an_old_price_for_long() {
    let redis = Redis::start();
    let cluster = Cluster::builder().workers(2).environment("REDIS_URL", &redis.unix_url()).start();
    let token = cluster.token();
    let id = cluster.products(1)[0]["id"].as_str().unwrap().to_owned();
    let mut workers = EveryWorker::of(&cluster, 2);
    let read = Request::get(&format!("/api/v1/products/{id}"));
    for price in 501..511 {
        workers.ask(&read);
        redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert_eq!(patch_price(&cluster, &token, &id, price).status, 200);
        let written = Instant::now();
        while !prices(&workers.ask(&read)).iter().all(|seen| *seen == price) {
            assert!(written.elapsed() < Duration::from_millis(2_500), "stale after {:?}", written.elapsed());
        }
    }
}

#[test]
fn many_concurrent_misses_over_all_workers_are_one_load() {
    let cluster = Cluster::builder().workers(4).start();
    let id = cluster.products(1)[0]["id"].as_str().unwrap().to_owned();
    let load = Load {
        clients: 250,
        requests: 1_000,
        duration: Duration::from_secs(20),
        ..Load::new(cluster.address, &format!("/api/v1/products/{id}"))
    };
    let before = cluster.product_reads();
    let report = load.run();
    report.assert_clean();
    assert_eq!(report.status(200), 1_000);
    assert_eq!(cluster.product_reads() - before, 1.0, "one load over all workers");
}

#[test]
fn conditional_reads_and_writes_follow_the_version() {
    let cluster = Cluster::builder().workers(1).start();
    let token = cluster.token();
    let id = cluster.products(1)[0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/products/{id}");
    let etag = cluster.get(&path).header("etag").unwrap().to_owned();
    let unchanged = cluster.send(&Request::get(&path).header("if-none-match", &etag));
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let patch = |etag: &str| {
        let request =
            Request::new("PATCH", &path).header("authorization", &format!("Bearer {token}")).header("if-match", etag);
        cluster.send(&request.json("{\"stock\":7}"))
    };
    assert_eq!(patch(&etag).status, 200);
    let stale = patch(&etag);
    assert_eq!(stale.status, 412, "{}", stale.text());
    assert_eq!(stale.header("content-type"), Some("application/problem+json"));
    let changed = cluster.send(&Request::get(&path).header("if-none-match", &etag));
    assert_eq!(changed.status, 200);
}
