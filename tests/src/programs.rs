//! Programs that know nothing of Bellwether and take an inherited socket: a Node server and a Python one live as our own worker does.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use test_support::http::Request;
use test_support::{Connections, FailureKind, Load, Signal, eventually, http, process};

use crate::cluster::{Builder, Cluster};

const CONFIGURATION: &str = "[supervisor]\ncanary = \"300ms\"\nmin_uptime = \"400ms\"\n";

const PATIENCE: Duration = Duration::from_secs(10);

/// The interpreter and the script in `tests/programs`.
const NODE: [&str; 2] = ["node", concat!(env!("CARGO_MANIFEST_DIR"), "/programs/server.js")];
const PYTHON: [&str; 2] = ["python3", concat!(env!("CARGO_MANIFEST_DIR"), "/programs/server.py")];

fn serving(program: [&str; 2]) -> Builder {
    Cluster::builder().workers(2).configuration(CONFIGURATION).program(&program)
}

/// Waits until all workers that count as ready, because they have lived for long enough, really are.
fn all_listen(cluster: &Cluster) {
    eventually(PATIENCE, || {
        let output = cluster.output();
        cluster.ready_workers().iter().all(|worker| output.contains(&format!(" {} listens", worker.pid)))
    });
}

/// The workers that answer, by slot and process.
fn answering(cluster: &Cluster) -> BTreeSet<String> {
    (0..40).map(|_| cluster.get("/").text()).collect()
}

/// Clients that open a connection for each request, until they are stopped.
fn newcomers(cluster: &Cluster, path: &str) -> Load {
    let (connections, duration) = (Connections::PerRequest, Duration::from_secs(600));
    Load { clients: 4, connections, duration, ..Load::new(cluster.address, path) }
}

/// Both workers serve and are known; nothing is lost by a reload or another number; a crash is mended; what they print is kept.
fn lives_as_our_own_worker_does(program: [&str; 2]) {
    let cluster = serving(program).start();
    eventually(PATIENCE, || answering(&cluster).len() == 2);
    let before = cluster.ready_workers();
    let expected: BTreeSet<_> = before.iter().map(|worker| format!("{} {}\n", worker.id, worker.pid)).collect();
    assert_eq!(answering(&cluster), expected);

    let load = newcomers(&cluster, "/").start();
    let slow = Load { clients: 2, ..newcomers(&cluster, "/slow") }.start();
    cluster.never_below(2, || (0..2).for_each(|_| assert!(cluster.command(&["reload"]).status.success())));
    for count in ["4", "1", "2"] {
        assert!(cluster.command(&["scale", count]).status.success());
        let wanted: usize = count.parse().unwrap();
        eventually(PATIENCE, || cluster.status().unwrap()["workers"].as_array().unwrap().len() == wanted);
    }
    load.stop();
    slow.stop();
    let (report, slow) = (load.join(), slow.join());
    println!("{report}{slow}");
    report.assert_clean();
    slow.assert_clean();
    eventually(PATIENCE, || before.iter().all(|worker| !process::is_alive(worker.pid)));

    let crashed = cluster.ready_workers();
    let answer = http::send_blocking(cluster.address, &Request::get("/crash"));
    assert!(answer.is_err(), "{answer:?}");
    eventually(PATIENCE, || cluster.ready_workers().iter().any(|worker| worker.restarts == 1));
    all_listen(&cluster);
    let after = cluster.ready_workers();
    assert_eq!(after.iter().filter(|worker| crashed.contains(worker)).count(), 1, "{crashed:?} and {after:?}");

    let logs = String::from_utf8_lossy(&cluster.command(&["logs", "--lines", "1000"]).stdout).into_owned();
    for worker in &after {
        assert!(logs.contains(&format!("w{}| {}", worker.id, name_of(program))), "{logs}");
        assert!(logs.contains(&format!(" {} listens", worker.pid)), "{logs}");
    }
    assert!(cluster.output().contains(&format!(" {} is told to end", before[0].pid)), "{}", cluster.output());
}

fn name_of(program: [&str; 2]) -> &str {
    program[0].trim_end_matches('3')
}

/// TERM is enough for one that listens to it, with what is in flight; one that does not is killed.
fn ends_by_term_or_by_kill(program: [&str; 2]) {
    let mut cluster = serving(program).start();
    all_listen(&cluster);
    let slow = Load { requests: 2, clients: 2, ..newcomers(&cluster, "/slow") }.start();
    eventually(PATIENCE, || cluster.output().matches("a slow request begins").count() == 2);
    cluster.signal(Signal::SIGTERM);
    let report = slow.join();
    assert_eq!(cluster.wait(PATIENCE).code(), Some(0), "{}", cluster.output());
    assert_eq!((report.succeeded, report.failed(FailureKind::Reset)), (2, 0), "{report}");
    drop(cluster);

    let impatient = serving(program).environment("DEAF", "1").argument("--set=supervisor.kill_timeout=\"1s\"");
    let mut cluster = impatient.start();
    all_listen(&cluster);
    let workers = cluster.ready_workers();
    let begun = Instant::now();
    cluster.signal(Signal::SIGTERM);
    assert_eq!(cluster.wait(PATIENCE).code(), Some(1), "{}", cluster.output());
    let took = begun.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&took), "{took:?}");
    assert!(workers.iter().all(|worker| !process::is_alive(worker.pid)));
    assert!(cluster.output().contains("has not ended in time and is killed"), "{}", cluster.output());
}

#[test]
fn a_node_server_lives_as_our_own_worker_does() {
    lives_as_our_own_worker_does(NODE);
}

#[test]
fn a_python_server_lives_as_our_own_worker_does() {
    lives_as_our_own_worker_does(PYTHON);
}

#[test]
fn a_node_server_ends_by_term_or_by_kill() {
    ends_by_term_or_by_kill(NODE);
}

#[test]
fn a_python_server_ends_by_term_or_by_kill() {
    ends_by_term_or_by_kill(PYTHON);
}
