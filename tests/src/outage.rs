//! Redis killed or stopped under load: reads go on, limits hold, everything resumes.

use std::time::{Duration, Instant};

use test_support::http::Request;
use test_support::{Load, Signal, eventually, process};

use crate::cluster::Cluster;

/// How long Redis is away.
fn outage() -> Duration {
    Duration::from_secs(if std::env::var_os("BELLWETHER_LONG").is_some() { 20 } else { 8 })
}

/// How Redis is taken away and brought back.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Killed,
    Stopped,
}

#[test]
fn reads_go_on_while_redis_is_stopped() {
    reads_go_on(Fault::Stopped);
}

#[test]
fn reads_go_on_while_redis_is_killed_again_and_again() {
    reads_go_on(Fault::Killed);
}

fn reads_go_on(fault: Fault) {
    let cluster = Cluster::builder().workers(2).start();
    let products = cluster.products(50);
    let mix: Vec<Request> = products
        .iter()
        .map(|product| Request::get(&format!("/api/v1/products/{}", product["id"].as_str().unwrap())))
        .collect();
    let load = Load { mix, clients: 8, duration: outage() + Duration::from_secs(6), ..Load::new(cluster.address, "/") };
    let load = load.start();
    eventually(Duration::from_secs(5), || cluster.requests() > 500.0);
    let memory_before: u64 = cluster.ready_workers().iter().map(|worker| process::rss_bytes(worker.pid)).sum();
    let end = Instant::now() + outage();
    match fault {
        Fault::Stopped => {
            let redis = cluster.redis_pid();
            assert!(process::signal(redis, Signal::SIGSTOP));
            eventually(outage() + Duration::from_secs(1), || Instant::now() >= end);
            assert!(process::signal(redis, Signal::SIGCONT));
        }
        // The supervisor restarts it each time, with a growing pause.
        Fault::Killed => eventually(outage() + Duration::from_secs(1), || {
            if let Some(pid) = running_redis(&cluster) {
                process::signal(pid, Signal::SIGKILL);
            }
            Instant::now() >= end
        }),
    }
    let back = Instant::now();
    eventually(Duration::from_secs(35), || cluster.get("/health").text().contains("\"status\":\"pass\""));
    let resumed = back.elapsed();
    let memory_after: u64 = cluster.ready_workers().iter().map(|worker| process::rss_bytes(worker.pid)).sum();
    let report = load.join();
    report.assert_clean();
    assert!(report.latency.p99() <= Duration::from_millis(150), "p99 {:?}", report.latency.p99());
    assert!(memory_after <= memory_before + 30 * 1024 * 1024, "from {memory_before} to {memory_after} bytes");
    println!("{fault:?}: {} answers, p99 {:?}, resumed after {resumed:?}", report.succeeded, report.latency.p99());
    if matches!(fault, Fault::Stopped) {
        assert!(resumed <= Duration::from_secs(2), "resumed after {resumed:?}");
    }
}

fn running_redis(cluster: &Cluster) -> Option<u32> {
    let status = cluster.status()?;
    let redis = status["processes"].as_array()?.iter().find(|process| process["name"] == "redis")?.clone();
    (redis["state"] == "ready").then(|| redis["pid"].as_u64()).flatten().map(|pid| pid as u32)
}

#[test]
fn limits_are_divided_exactly_while_redis_is_away() {
    let configuration = "[http]\ntrusted_proxies = [\"127.0.0.1/32\"]\n\
        [[rate_limit.policy]]\nname = \"test\"\npaths = [\"/api/**\"]\nlimit = 40\nwindow = \"1h\"\n";
    let cluster = Cluster::builder().workers(4).configuration(configuration).start();
    let admitted = |client: &str| {
        // Connections of their own spread over the workers; enough of them exhaust every worker's share.
        let request = Request::get("/api/v1/categories").header("x-forwarded-for", client);
        (0..400).filter(|_| cluster.send(&request).status == 200).count()
    };
    assert_eq!(admitted("203.0.113.1"), 40);
    assert!(process::signal(cluster.redis_pid(), Signal::SIGSTOP));
    eventually(Duration::from_secs(10), || cluster.get("/health").text().contains("\"warn\""));
    assert_eq!(admitted("203.0.113.2"), 40, "the workers' shares add up to the limit");
    assert!(admitted("203.0.113.1") <= 40, "at most twice the limit in the window of the change");
    assert!(process::signal(cluster.redis_pid(), Signal::SIGCONT));
    // Each worker finds out for itself that Redis is back; from then on a client that nobody knows yet gets the limit.
    let mut client = 0;
    eventually(Duration::from_secs(4), || {
        client += 1;
        match admitted(&format!("198.51.100.{client}")) {
            40 => Ok(()),
            other => Err(format!("{other} admitted")),
        }
    });
}
