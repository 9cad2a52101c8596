//! Clients that are slow, greedy or hostile: cut off in time, while the others do not notice.

use std::time::{Duration, Instant};

use test_support::http::{Connection, Request};
use test_support::{Endpoint, Load, eventually, process};

use crate::cluster::Cluster;

/// 1.6 KB that a decompressing server would turn into gigabytes; here only its header matters.
const BOMB: &[u8] = &[0x5b; 1_600];

#[test]
fn slow_and_greedy_clients_are_cut_off_while_others_do_not_notice() {
    let cluster = Cluster::builder().workers(2).start();
    let calm =
        Load { clients: 4, duration: Duration::from_secs(3), ..Load::new(cluster.address, "/api/v1/categories") };
    let before = calm.clone().run();
    before.assert_clean();
    let memory_before: u64 = cluster.ready_workers().iter().map(|worker| process::rss_bytes(worker.pid)).sum();
    let endpoint = Endpoint::from(cluster.address);
    let attackers = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(futures_util::future::join_all((0..80).map(|number| attack(number % 4, &endpoint))))
    });
    let during = Load { duration: Duration::from_secs(12), ..calm }.run();
    during.assert_clean();
    let memory_during: u64 = cluster.ready_workers().iter().map(|worker| process::rss_bytes(worker.pid)).sum();
    for (kind, held) in attackers.join().unwrap() {
        let deadline = Duration::from_secs(if kind == 1 { 18 } else { 13 });
        assert!(held <= deadline, "attack {kind} held its connection for {held:?}");
    }
    assert!(memory_during <= memory_before + 50 * 1024 * 1024, "from {memory_before} to {memory_during} bytes");
    // Twice the calm figure, or a scheduler's slice on a machine that runs other tests as well.
    let bound = (before.latency.p99() * 2).max(Duration::from_millis(25));
    assert!(during.latency.p99() <= bound, "p99 {:?} instead of {:?}", during.latency.p99(), before.latency.p99());
}

/// Runs one attack until the server ends the connection; returns its kind and how long that took.
async fn attack(kind: usize, endpoint: &Endpoint) -> (usize, Duration) {
    let mut connection = Connection::open(endpoint).await.unwrap();
    let mut start = Instant::now();
    let (opening, drip): (&[u8], &[u8]) = match kind {
        // A head that never ends.
        0 => (b"GET /livez HTTP/1.1\r\nhost: x\r\n", b"x-slow: 1\r\n"),
        // A body that never ends.
        1 => (
            b"PATCH /api/v1/products/x HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n",
            b" ",
        ),
        // The second head of a connection.
        2 => {
            let answer = connection.exchange(&Request::get("/livez")).await.unwrap();
            assert_eq!(answer.status, 200);
            start = Instant::now();
            (b"GET /livez HTTP/1.1\r\n", b"x-slow: 1\r\n")
        }
        // Silence.
        _ => (b"", b""),
    };
    if connection.write(opening).await.is_ok() {
        let ended = async {
            loop {
                tokio::select! {
                    _ = connection.read_to_end() => break,
                    () = tokio::time::sleep(Duration::from_millis(500)) => {}
                }
                if !drip.is_empty() && connection.write(drip).await.is_err() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(40), ended).await;
    }
    (kind, start.elapsed())
}

#[test]
fn what_must_not_come_in_is_refused_at_the_door() {
    let cluster = Cluster::builder().workers(1).start();
    let huge = "x".repeat(100_000);
    let mut crowded = Request::get("/livez");
    for number in 0..70 {
        crowded = crowded.header(&format!("x-header-{number}"), "1");
    }
    let table = [
        (Request::get("/livez").header("x-huge", &huge), 431),
        (crowded, 431),
        (Request::new("TRACE", "/livez"), 405),
        (
            Request::new("PATCH", "/api/v1/products/x").header("content-encoding", "br").body("application/json", BOMB),
            415,
        ),
        (Request::new("DELETE", "/api/v1/categories"), 405),
        (Request::get("/nowhere"), 404),
        (Request::get("/api/v1/products/no-such-product"), 404),
        (Request::get("/api/v1/products?limit=0"), 400),
        (Request::get("/api/v1/products?limt=5"), 400),
        (Request::get("/api/v1/products?cursor=rubbish"), 400),
        (Request::new("PATCH", "/api/v1/products/x").json("{\"stock\":1}"), 401),
        (
            Request::new("PATCH", "/api/v1/products/x")
                .header("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.")
                .json("{}"),
            401,
        ),
    ];
    for (request, expected) in table {
        let answer = cluster.send(&request);
        assert_eq!(
            answer.status,
            expected,
            "{}",
            String::from_utf8_lossy(&request.to_bytes()[..60.min(request.to_bytes().len())])
        );
        if expected != 431 {
            assert_eq!(
                answer.header("content-type"),
                Some("application/problem+json"),
                "{expected}: {:?}",
                answer.headers
            );
            assert!(answer.header("x-request-id").is_some(), "{expected}");
            assert!(answer.text().contains("trace_id"), "{expected}: {}", answer.text());
        }
    }
}

#[test]
fn a_bad_body_is_told_apart_and_a_good_one_is_written() {
    let cluster = Cluster::builder().workers(1).start();
    let token = cluster.token();
    let id = cluster.products(1)[0]["id"].as_str().unwrap().to_owned();
    let patch = |body: &str| {
        let request = Request::new("PATCH", &format!("/api/v1/products/{id}"));
        cluster.send(&request.header("authorization", &format!("Bearer {token}")).json(body))
    };
    for (body, expected) in [
        ("{", 400),
        ("[]", 400),
        ("{\"price\":{\"amount\":-1}}", 422),
        ("{\"version\":9}", 400),
        ("{}", 422),
        (&format!("{{\"description\":\"{}\"}}", "x".repeat(300_000)), 413),
        ("{\"stock\":3}", 200),
    ] {
        let answer = patch(body);
        assert_eq!(answer.status, expected, "{}: {}", &body[..body.len().min(60)], answer.text());
    }
    eventually(Duration::from_secs(2), || {
        cluster.get(&format!("/api/v1/products/{id}")).text().contains("\"stock\":3")
    });
}
