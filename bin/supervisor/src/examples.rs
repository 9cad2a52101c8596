//! A made-up supervisor for tests: something of everything that can be shown.

use jiff::Timestamp;
use supervise::status::{
    DependencyStatus, HostStatus, LastExit, ProcessStatus, SCHEMA, State, Status, SupervisorState, SupervisorStatus,
    WorkerStatus,
};

/// Twelve seconds after the last exit.
pub(crate) fn now() -> Timestamp {
    "2026-01-01T00:00:12Z".parse().unwrap()
}

/// Why the broken worker of [`status`] is broken.
pub(crate) const REASON: &str =
    "it exited with 78 and must not be started again:\n/etc/bellwether/bellwether.toml: no such file";

pub(crate) fn worker(id: u32, state: State) -> WorkerStatus {
    WorkerStatus {
        id,
        pid: Some(41_277 + id as i32),
        generation: 1,
        state,
        restarts: 0,
        uptime_seconds: Some(11_000.0),
        cpu_percent: Some(61.4),
        rss_bytes: Some(39_950_000),
        connections: Some(64),
        requests_total: Some(1_000_000),
        requests_per_second: Some(9_812.0),
        p99_seconds: Some(0.0031),
        loop_lag_seconds: Some(0.0002),
        last_exit: None,
        reason: None,
    }
}

/// One that has told nothing yet.
pub(crate) fn starting(id: u32) -> WorkerStatus {
    WorkerStatus {
        uptime_seconds: Some(0.4),
        cpu_percent: None,
        rss_bytes: None,
        connections: None,
        requests_total: None,
        requests_per_second: None,
        p99_seconds: None,
        loop_lag_seconds: None,
        ..worker(id, State::Starting)
    }
}

fn broken(id: u32) -> WorkerStatus {
    WorkerStatus {
        pid: None,
        state: State::Broken,
        uptime_seconds: None,
        restarts: 12,
        last_exit: Some(LastExit { code: Some(78), signal: None, at: "2026-01-01T00:00:00Z".to_owned() }),
        reason: Some(REASON.to_owned()),
        ..starting(id)
    }
}

/// In the middle of a reload: slot 0 has a successor, slot 2 is broken, and not every dependency is reached.
pub(crate) fn status() -> Status {
    let successor = WorkerStatus { generation: 2, pid: Some(41_300), ..starting(0) };
    let killed = LastExit { code: None, signal: Some(9), at: "2026-01-01T00:00:00Z".to_owned() };
    let restarted = WorkerStatus { restarts: 1, last_exit: Some(killed), ..worker(1, State::Ready) };
    Status {
        schema: SCHEMA.to_owned(),
        supervisor: SupervisorStatus {
            pid: 41_200,
            version: "0.1.0".to_owned(),
            uptime_seconds: 90_000.0,
            generation: 2,
            state: SupervisorState::Reloading,
            listen: vec!["127.0.0.1:8080".to_owned(), "unix:/run/bellwether/http.sock".to_owned()],
            workers_wanted: 3,
        },
        workers: vec![worker(0, State::Ready), successor, restarted, broken(2)],
        processes: vec![ProcessStatus {
            name: "redis".to_owned(),
            pid: Some(41_201),
            state: State::Ready,
            restarts: 0,
            uptime_seconds: Some(90_000.0),
        }],
        host: HostStatus {
            name: "web1".to_owned(),
            cpus: 4,
            load: Some([0.42, 0.36, 0.3]),
            memory_bytes: Some(16 << 30),
            memory_available_bytes: Some(12 << 30),
        },
        dependencies: vec![
            dependency("redis", 2, "unix:/run/bellwether/redis.sock"),
            dependency("cache", 1, "10.0.0.5:6379"),
            dependency("database", 0, "PostgreSQL at db.internal/bellwether"),
        ],
    }
}

fn dependency(name: &str, reached_by: u32, detail: &str) -> DependencyStatus {
    DependencyStatus { name: name.to_owned(), reached_by, workers: 2, detail: detail.to_owned() }
}
