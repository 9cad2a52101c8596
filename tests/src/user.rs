//! Workers that run as another user than the supervisor: what is theirs, and what they cannot touch.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use test_support::Binaries;
use test_support::http::Request;

use crate::cluster::{Cluster, run};

/// The owner of a file and the rights everybody has to it.
fn owner_and_mode(path: &Path) -> (u32, u32) {
    let metadata = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (metadata.uid(), metadata.mode() & 0o777)
}

fn owner_of_process(pid: u32) -> u32 {
    fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

#[test]
fn up_with_a_user_serves_and_writes_as_that_user_who_cannot_touch_what_is_roots() {
    let probe = tempfile::tempdir().unwrap();
    let nobody = 65534;
    if owner_and_mode(probe.path()).0 != 0 {
        println!("skipped: only root can start workers as another user");
        return;
    }
    let cluster = Cluster::builder().workers(2).user("nobody").start();
    let id = cluster.products(1)[0]["id"].as_str().unwrap().to_owned();
    let request = Request::new("PATCH", &format!("/api/v1/products/{id}"));
    let bearer = format!("Bearer {}", cluster.token());
    let answer = cluster.send(&request.header("authorization", &bearer).json("{\"stock\":4}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        cluster.get("/health").text().contains("\"status\":\"pass\",\"version\""),
        "Redis or SQLite is not reached"
    );

    let mut processes: Vec<_> = cluster.ready_workers().iter().map(|worker| worker.pid).collect();
    processes.push(cluster.redis_pid());
    for pid in processes {
        assert_eq!(owner_of_process(pid), nobody, "process {pid}");
    }
    let state = cluster.state_dir();
    for theirs in ["data", "redis"] {
        assert_eq!(owner_and_mode(&state.join(theirs)), (nobody, 0o700), "{theirs}");
    }
    for theirs in ["data/bellwether.db", "data/token.key"] {
        assert_eq!(owner_and_mode(&state.join(theirs)), (nobody, 0o600), "{theirs}");
    }
    assert_eq!(owner_and_mode(&state), (0, 0o701), "they pass through it and change nothing");
    for roots in ["supervisor.sock", "supervisor.sock.lock", "up.lock"] {
        assert_eq!(owner_and_mode(&state.join(roots)), (0, 0o600), "{roots}");
    }
    // The command line finds the same database when it is told of the user.
    let directory = state.parent().unwrap();
    let worker = Binaries::worker();
    let set = ["--state-dir", "state", "--set", "supervisor.user=nobody", "db", "status", "--worker-bin"];
    let status = run(directory, &[&set[..], &[worker.to_str().unwrap()]].concat());
    assert_eq!(status.status.code(), Some(0), "{status:?}");
}
