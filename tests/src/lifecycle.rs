//! Deaths and drains: what is lost when a worker, all workers or the supervisor die, and that a stop loses nothing.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use test_support::http::{Connection, Request, Response};
use test_support::{Binaries, Endpoint, FailureKind, GuardedChild, Load, Signal, eventually, free_port, process};

use crate::cluster::{Cluster, Worker, supervisor};

fn busy(cluster: &Cluster, clients: usize, duration: Duration) -> Load {
    Load { clients, duration, ..Load::new(cluster.address, "/api/v1/categories") }
}

fn kill(pid: u32) {
    assert!(process::signal(pid, Signal::SIGKILL), "{pid} was there to be killed");
}

/// Waits until the slot has another ready worker and returns how long that took.
fn replaced(cluster: &Cluster, dead: &Worker) -> Duration {
    let start = Instant::now();
    eventually(Duration::from_secs(20), || {
        cluster.ready_workers().iter().any(|worker| worker.id == dead.id && worker.pid != dead.pid)
    });
    start.elapsed()
}

#[test]
fn a_killed_worker_is_replaced_at_once_also_the_tenth_time() {
    let cluster = Cluster::builder().workers(2).start();
    let mut times = Vec::new();
    for round in 0..10 {
        let victim = cluster.ready_workers()[round % 2].clone();
        kill(victim.pid);
        let took = replaced(&cluster, &victim);
        assert!(took <= Duration::from_millis(1_500), "round {round}: ready after {took:?}");
        times.push(took);
    }
    times.sort();
    // The slowest may have met a busy machine.
    assert!(times[8] <= Duration::from_millis(500), "{times:?}");
    println!("ready again after {times:?}");
    let restarts: u64 = cluster.ready_workers().iter().map(|worker| worker.restarts).sum();
    assert_eq!(restarts, 10);
}

#[test]
fn a_killed_worker_costs_only_what_it_had_in_flight() {
    let cluster = Cluster::builder().workers(2).start();
    let clients = 16;
    let load = busy(&cluster, clients, Duration::from_secs(4)).start();
    let begun = Instant::now();
    eventually(Duration::from_secs(5), || cluster.requests() > 100.0);
    let victim = cluster.ready_workers()[0].clone();
    kill(victim.pid);
    let killed = begun.elapsed();
    replaced(&cluster, &victim);
    let report = load.join();
    assert_eq!(report.failed(FailureKind::Refused), 0, "{:?}", report.failures);
    let later = report.failures.iter().filter(|failure| failure.at > killed + Duration::from_millis(500)).count();
    assert_eq!(later, 0, "killed after {killed:?}: {:?}", report.failures);
    assert!(report.failures.len() <= clients, "{} failures: {:?}", report.failures.len(), report.failures);
    assert!(report.succeeded > 500, "only {} succeeded", report.succeeded);
}

#[test]
fn when_all_workers_die_nobody_is_refused() {
    let cluster = Cluster::builder().workers(3).start();
    // What a killed worker was loading into the cache is loaded again when its lease ends, which is another matter.
    assert_eq!(cluster.get("/api/v1/categories").status, 200);
    let load = Load { connections: test_support::Connections::PerRequest, ..busy(&cluster, 8, Duration::from_secs(4)) };
    let begun = Instant::now();
    let load = load.start();
    for worker in cluster.ready_workers() {
        kill(worker.pid);
    }
    let killed = begun.elapsed();
    eventually(Duration::from_secs(20), || cluster.ready_workers().len() == 3);
    let report = load.join();
    assert_eq!(report.failed(FailureKind::Refused), 0, "{:?}", report.failures);
    println!("{report}");
    // A client may have had a request in flight with one worker after the other while they were killed, but nobody lost one later.
    assert!(report.failures.len() <= 8 * 3, "{report}");
    assert!(report.failures.iter().all(|failure| failure.at <= killed), "killed by {killed:?}: {:?}", report.failures);
    // Whoever was queued waits for the next worker and no longer.
    assert!(report.latency.max() <= Duration::from_millis(1_500), "{report}");
}

#[test]
fn a_worker_is_replaced_while_redis_is_down() {
    let cluster = Cluster::builder().workers(2).start();
    assert!(process::signal(cluster.redis_pid(), Signal::SIGSTOP));
    let times: Vec<Duration> = (0..3)
        .map(|round| {
            let victim = cluster.ready_workers()[round % 2].clone();
            kill(victim.pid);
            replaced(&cluster, &victim)
        })
        .collect();
    assert!(process::signal(cluster.redis_pid(), Signal::SIGCONT));
    // A quarter of a second of it is the first attempt at Redis. One of them may have met a busy machine.
    assert!(times.iter().filter(|took| **took <= Duration::from_millis(500)).count() >= 2, "ready after {times:?}");
}

/// A write whose body comes in two pieces, so that it lasts for as long as a test likes.
struct SlowWrite {
    runtime: tokio::runtime::Runtime,
    connection: Connection,
}

impl SlowWrite {
    fn begin(cluster: &Cluster) -> Self {
        let id = cluster.products(1)[0]["id"].as_str().unwrap().to_owned();
        let head = format!(
            "PATCH /api/v1/products/{id} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: 11\r\n\r\n{{",
            cluster.token()
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut connection = runtime.block_on(Connection::open(&Endpoint::from(cluster.address))).unwrap();
        runtime.block_on(connection.write(head.as_bytes())).unwrap();
        eventually(Duration::from_secs(5), || {
            cluster.total(|name| name.starts_with("http_server_active_requests")) >= 1.0
        });
        Self { runtime, connection }
    }

    fn finish(mut self) -> Response {
        self.runtime.block_on(self.connection.write(b"\"stock\":5}")).unwrap();
        self.runtime.block_on(self.connection.read_response(false)).unwrap()
    }
}

#[test]
fn without_a_supervisor_no_process_stays() {
    let mut cluster = Cluster::builder().workers(2).argument("--set=supervisor.kill_timeout=\"3s\"").start();
    let orphans: BTreeSet<u32> = process::descendants(cluster.pid()).into_iter().collect();
    assert!(orphans.len() >= 3, "{orphans:?}");
    // A request whose body does not come keeps its worker busy for longer than the drain may last.
    let _slow = SlowWrite::begin(&cluster);
    cluster.signal(Signal::SIGKILL);
    cluster.wait(Duration::from_secs(5));
    eventually(Duration::from_secs(35), || orphans.iter().all(|pid| !process::is_alive(*pid)));
}

#[test]
fn after_a_killed_supervisor_its_workers_finish_and_the_next_one_serves_at_the_same_address() {
    let mut cluster = Cluster::builder().workers(2).start();
    let orphans: Vec<u32> = process::descendants(cluster.pid());
    let product = format!("/api/v1/products/{}", cluster.products(1)[0]["id"].as_str().unwrap());
    let slow = SlowWrite::begin(&cluster);
    let killed = Instant::now();
    cluster.signal(Signal::SIGKILL);
    cluster.wait(Duration::from_secs(5));
    eventually(Duration::from_secs(1), || test_support::http::get_blocking(cluster.address, "/livez").is_err());
    let refused = killed.elapsed();
    assert!(refused <= Duration::from_millis(200), "workers drain only {refused:?} after their supervisor's death");
    let answer = slow.finish();
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually(Duration::from_secs(5), || orphans.iter().all(|pid| !process::is_alive(*pid)));
    cluster.start_again();
    assert!(cluster.get(&product).text().contains("\"stock\":5"), "what was written at last is there");
    assert_eq!(cluster.ready_workers().len(), 2);
}

#[test]
fn a_second_supervisor_does_not_share_the_port_with_what_a_killed_one_left() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let start = |state: &str, behaviour: &str| {
        let mut command = supervisor();
        command
            .current_dir(directory.path())
            .args(["start", "--listen", &address, "--workers", "1", "--state-dir", state, "--"])
            .arg(Binaries::misbehaving())
            .args([behaviour].iter().filter(|behaviour| !behaviour.is_empty()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        GuardedChild::spawn(&mut command).unwrap()
    };
    let mut first = start("first", "ignore-term");
    let endpoint: std::net::SocketAddr = address.parse().unwrap();
    let left: u32 = eventually(Duration::from_secs(20), || {
        let answer = test_support::http::get_blocking(endpoint, "/").ok()?;
        answer.text().trim().parse().ok()
    });
    first.signal(Signal::SIGKILL);
    assert!(first.wait_within(Duration::from_secs(5)).is_some());
    assert!(process::is_alive(left), "a program that ignores TERM outlives its supervisor");
    let mut second = start("second", "");
    let status = second.wait_within(Duration::from_secs(10));
    assert!(process::signal(left, Signal::SIGKILL));
    assert_eq!(status.and_then(|status| status.code()), Some(73));
}

#[test]
fn a_stop_lets_slow_requests_finish_and_busy_clients_lose_nothing() {
    let mut cluster = Cluster::builder().workers(2).start();
    let load = busy(&cluster, 64, Duration::from_secs(20)).start();
    eventually(Duration::from_secs(10), || cluster.requests() > 500.0);
    let slow = SlowWrite::begin(&cluster);
    let begun = Instant::now();
    cluster.signal(Signal::SIGTERM);
    eventually(Duration::from_secs(2), || begun.elapsed() >= Duration::from_secs(1));
    load.stop();
    // The rest of its body comes seconds after the stop began.
    eventually(Duration::from_secs(5), || begun.elapsed() >= Duration::from_secs(4));
    let slow = slow.finish();
    assert_eq!(slow.status, 200, "{}", slow.text());
    assert!(slow.closes());
    let status = cluster.wait(Duration::from_secs(30));
    let report = load.join();
    assert_eq!(status.code(), Some(0), "{}", cluster.output());
    // After the end of the service connections are refused, which is what a stop means; nothing else may happen to a client.
    let lost: Vec<_> = report.failures.iter().filter(|failure| !matches!(failure.kind, FailureKind::Refused)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    println!("{} answered, {} reused connections closed before a byte", report.succeeded, report.reused_closed);
}

#[test]
fn from_the_moment_of_a_stop_the_service_says_that_it_is_not_ready() {
    let mut cluster = Cluster::builder().workers(1).start();
    let slow = SlowWrite::begin(&cluster);
    let mut balancer = slow.runtime.block_on(Connection::open(&Endpoint::from(cluster.address))).unwrap();
    let mut looks = || slow.runtime.block_on(balancer.exchange(&Request::get("/readyz"))).unwrap();
    assert_eq!(looks().status, 200);
    cluster.signal(Signal::SIGTERM);
    let told = Instant::now();
    let answer = eventually(Duration::from_millis(500), || Some(looks()).filter(|answer| answer.status != 200));
    assert_eq!(answer.status, 503, "{answer:?}");
    println!("503 after {:?}", told.elapsed());
    assert_eq!(slow.finish().status, 200);
    assert_eq!(cluster.wait(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn an_idle_stop_takes_at_most_a_second_and_a_half() {
    let mut cluster = Cluster::builder().workers(2).start();
    let start = Instant::now();
    cluster.signal(Signal::SIGTERM);
    assert_eq!(cluster.wait(Duration::from_secs(10)).code(), Some(0));
    assert!(start.elapsed() <= Duration::from_millis(1_500), "{:?}", start.elapsed());
}

#[test]
fn readiness_ends_with_the_service_and_liveness_does_not_ask_anybody() {
    let cluster = Cluster::builder().workers(1).start();
    assert!(process::signal(cluster.redis_pid(), Signal::SIGSTOP));
    assert_eq!(cluster.get("/livez").status, 200);
    assert_eq!(cluster.get("/readyz").status, 200);
    let health = eventually(Duration::from_secs(10), || {
        let health = cluster.get("/health");
        assert_eq!(health.header("content-type"), Some("application/health+json"));
        health.text().contains("\"warn\"").then_some(health)
    });
    assert_eq!(health.status, 200);
    assert!(process::signal(cluster.redis_pid(), Signal::SIGCONT));
}

#[test]
fn a_stuck_reader_of_the_output_does_not_stop_supervision() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = supervisor();
    command
        .args(["up", "--workers", "2", "--listen", &address, "--admin-listen", &format!("127.0.0.1:{}", free_port())])
        .args(["--set", "http.access_log=\"all\"", "--state-dir"])
        .arg(&state)
        .stdin(Stdio::null())
        // Nobody ever reads: the pipes fill up and stay full.
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut guarded = GuardedChild::spawn(&mut command).unwrap();
    let socket = state.join("supervisor.sock");
    let workers = || {
        let output = supervisor().args(["status", "--json", "--socket"]).arg(&socket).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let workers = status["workers"].as_array().cloned().unwrap_or_default();
        workers.into_iter().filter(|worker| worker["state"] == "ready").collect::<Vec<_>>()
    };
    eventually(crate::cluster::START, || workers().len() == 2);
    let endpoint: std::net::SocketAddr = address.parse().unwrap();
    let report =
        Load { duration: Duration::from_secs(3), clients: 16, ..Load::new(endpoint, "/api/v1/categories") }.run();
    report.assert_clean();
    assert!(report.succeeded > 1_000, "too few lines to fill the pipe: {}", report.succeeded);
    let victim = workers()[0]["pid"].as_u64().unwrap() as u32;
    kill(victim);
    let start = Instant::now();
    eventually(Duration::from_secs(10), || {
        let now = workers();
        now.len() == 2 && now.iter().all(|worker| worker["pid"].as_u64() != Some(u64::from(victim)))
    });
    assert!(start.elapsed() <= Duration::from_millis(1_500), "{:?}", start.elapsed());
    guarded.signal(Signal::SIGTERM);
    assert!(guarded.wait_within(Duration::from_secs(10)).is_some(), "it must end although nobody reads");
}
