//! What goes over the channel, one promise each.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::{Duration, Instant};

use supervise::frame::{Dependency, DrainKind, FromWorker, ToWorker};
use telemetry::Snapshot;
use test_support::{Endpoint, Redis, Signal, eventually, free_port, http, prometheus};

use crate::harness::{PATIENCE, Worker};

/// A URL where no Redis is.
fn nowhere() -> String {
    format!("redis://127.0.0.1:{}", free_port())
}

fn wanted(said: &FromWorker) -> Option<u64> {
    match said {
        FromWorker::MetricsWanted { request } => Some(*request),
        _ => None,
    }
}

/// How many requests it has answered.
fn answered(snapshot: &Snapshot) -> f64 {
    let samples = snapshot.samples();
    samples
        .iter()
        .filter(|(name, _)| name.starts_with("http_server_request_duration_seconds_count"))
        .map(|(_, count)| count)
        .sum()
}

#[test]
fn a_worker_beats_every_second_and_sends_clean_metrics_in_small_frames() {
    let mut worker = Worker::start(&nowhere());
    assert_eq!(worker.get("/livez").status, 200);
    let snapshot = worker.hear("metrics with the request", |said| match said {
        FromWorker::Metrics(snapshot) if answered(snapshot) >= 1.0 => Some(snapshot.clone()),
        _ => None,
    });
    assert_eq!(prometheus::lint(&snapshot.render()), [""; 0]);
    for name in ["bellwether_loop_lag_seconds", "bellwether_worker_info", "process_cpu_time_seconds_total"] {
        assert!(snapshot.families.iter().any(|family| family.name == name), "{name}");
    }
    let bytes = supervise::frame::encode(&FromWorker::Metrics(snapshot)).len();
    println!("{bytes} bytes a second");
    assert!(bytes < 64 << 10, "{bytes} bytes");
    eventually(PATIENCE, || worker.beats().len() >= 4);
    let beats = worker.beats();
    let apart = (beats[3].0 - beats[0].0) / 3;
    assert!((Duration::from_millis(900)..Duration::from_millis(1_300)).contains(&apart), "{apart:?} apart");
}

#[test]
fn the_supervisor_is_told_what_works_and_whenever_that_changes() {
    let redis = Redis::start();
    let url = redis.url().replace("redis://", "redis://:hunter2@");
    redis.command(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let mut worker = Worker::start(&url);
    let works = |told: &[Dependency]| told.iter().map(|one| (one.name.clone(), one.works)).collect::<Vec<_>>();
    let all =
        |redis: bool| [("redis", redis), ("cache", redis), ("database", true)].map(|(name, it)| (name.to_owned(), it));
    eventually(PATIENCE, || worker.dependencies().last().is_some_and(|told| works(told) == all(true)));
    let told = worker.dependencies().pop().unwrap();
    assert_eq!(told[0].detail, redis.url());
    assert!(told[2].detail.starts_with("sqlite:///"), "{told:?}");
    assert!(!format!("{told:?}").contains("hunter2"), "{told:?}");
    redis.kill();
    eventually(PATIENCE, || worker.dependencies().last().is_some_and(|told| works(told) == all(false)));
    let health = worker.get("/health").text();
    assert!(health.contains("\"status\":\"warn\""), "{health}");
    let times = worker.dependencies().len();
    let beats = worker.beats().len();
    eventually(PATIENCE, || worker.beats().len() >= beats + 3);
    assert_eq!(worker.dependencies().len(), times, "nothing has changed since");
}

#[test]
fn metrics_are_what_the_supervisor_answers_and_include_the_latest() {
    let mut worker = Worker::start(&nowhere());
    assert_eq!(worker.get("/livez").status, 200);
    let admin = worker.admin;
    let scrape = thread::spawn(move || http::get_blocking(admin, "/metrics").unwrap());
    let request = worker.hear("a question", wanted);
    let everything = worker.everything();
    let question = everything.iter().position(|said| wanted(said) == Some(request)).unwrap();
    let FromWorker::Metrics(snapshot) = &everything[question - 1] else { panic!("its own metrics come first") };
    assert_eq!(answered(snapshot), 1.0);
    // Longer than any piece that is read at once.
    let text = "bellwether_test_total 1\n".repeat(20_000);
    worker.tell(&ToWorker::Metrics { request: request + 1, text: "of another request".to_owned() });
    worker.tell(&ToWorker::Metrics { request, text: text.clone() });
    let response = scrape.join().unwrap();
    assert_eq!((response.status, response.header("content-type")), (200, Some(Snapshot::CONTENT_TYPE)));
    assert!(response.text() == text, "{} bytes", response.body.len());
}

#[test]
fn without_an_answer_of_the_supervisor_there_are_no_metrics() {
    let worker = Worker::start(&nowhere());
    let began = Instant::now();
    let response = http::get_blocking(worker.admin, "/metrics").unwrap();
    assert_eq!(response.status, 503);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert!(response.header("retry-after").is_some());
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[test]
fn clients_of_a_slot_without_a_worker_are_answered_by_the_one_that_adopts_it() {
    let worker = Worker::start(&nowhere());
    let orphaned = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let clients: Vec<_> = orphaned
        .iter()
        .flat_map(|listener| [listener.local_addr().unwrap(); 5])
        .map(|address| {
            // Connected before anybody accepts.
            let waiting = TcpStream::connect(address).unwrap();
            (thread::spawn(move || http::get_blocking(address, "/livez")), waiting)
        })
        .collect();
    // Requests that come after the queue was emptied wait for the next time.
    while clients.iter().any(|(client, _)| !client.is_finished()) {
        orphaned.iter().for_each(|listener| worker.tell_to_adopt(listener));
        thread::sleep(Duration::from_millis(20));
    }
    for (client, _) in clients {
        assert_eq!(client.join().unwrap().unwrap().status, 200);
    }
}

#[test]
fn limits_are_divided_by_the_number_of_workers_that_the_supervisor_has_told_last() {
    let policy = "rate_limit.policy=[{ name = \"p\", limit = 40, window = \"1h\" }]";
    let worker = Worker::start_with(&nowhere(), &[policy]);
    let status = || worker.get("/api/v1/products").status;
    assert_eq!([(); 3].map(|()| status()), [200; 3], "one of four workers may admit ten");
    worker.tell(&ToWorker::Workers { count: 20 });
    eventually(PATIENCE, || status() == 429);
    worker.tell(&ToWorker::Workers { count: 4 });
    eventually(PATIENCE, || status() == 200);
    let admitted = std::iter::repeat_with(status).take_while(|status| *status == 200).count();
    assert!(admitted < 10, "what it has admitted before counts: {admitted} more");
}

/// One request over a connection that stays, then a client that thinks for a while, then another request.
fn thinks(worker: &Worker, between: impl FnOnce()) -> http::Response {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let livez = http::Request::get("/livez");
    let mut connection = runtime.block_on(http::Connection::open(&Endpoint::from(worker.address))).unwrap();
    assert_eq!(runtime.block_on(connection.exchange(&livez)).unwrap().status, 200);
    between();
    runtime.block_on(connection.exchange(&livez)).unwrap()
}

#[test]
fn a_drain_for_a_reload_waits_for_clients_that_think_and_tells_the_last_counts() {
    let mut worker = Worker::start(&nowhere());
    let beats = worker.beats().len();
    let response = thinks(&worker, || {
        worker.tell(&ToWorker::Drain { kind: DrainKind::Reload });
        eventually(PATIENCE, || TcpStream::connect(worker.address).is_err());
        // More than the second of silence that a stop allows, less than the keep-alive of 5 s.
        thread::sleep(Duration::from_millis(2_500));
    });
    assert_eq!((response.status, response.closes()), (200, true));
    assert_eq!(worker.ends(), Some(0));
    let everything = worker.everything();
    let [.., FromWorker::Metrics(last), FromWorker::Drained { cut: 0 }] = &everything[..] else {
        panic!("the last counts and the report of the drain come last")
    };
    assert_eq!(answered(last), 2.0);
    assert!(worker.beats().len() >= beats + 2, "a worker beats while it drains");
}

#[test]
fn a_worker_that_drains_for_a_reload_is_ready_and_adopts() {
    let mut worker = Worker::start(&nowhere());
    let orphaned = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = orphaned.local_addr().unwrap();
    thinks(&worker, || {
        worker.tell(&ToWorker::Drain { kind: DrainKind::Reload });
        eventually(PATIENCE, || TcpStream::connect(worker.address).is_err());
        let client = thread::spawn(move || http::get_blocking(address, "/readyz").unwrap());
        while !client.is_finished() {
            worker.tell_to_adopt(&orphaned);
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(client.join().unwrap().status, 200, "another worker serves on the same socket");
    });
    assert_eq!(worker.ends(), Some(0));
}

#[test]
fn a_worker_told_to_abort_shows_where_its_main_thread_is() {
    let mut worker = Worker::start(&nowhere());
    let since = Instant::now();
    worker.child.signal(Signal::SIGABRT);
    let status = eventually(PATIENCE, || worker.child.try_wait());
    let took = since.elapsed();
    println!("ended after {took:?}");
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32));
    assert!(took < Duration::from_millis(1_500), "ended after {took:?}");
    assert!(worker.log().contains("worker::main"), "{}", worker.log());
}
