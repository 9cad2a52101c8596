//! A supervisor made of threads, which answers what a test wants to see.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use supervise::control::{Reply, Request};
use supervise::frame::{Decoder, encode_json, greeting};
use supervise::status::{
    DESCRIBE_SCHEMA, Description, HostStatus, SCHEMA, State, Status, SupervisorState, SupervisorStatus, WorkerStatus,
};

/// Two ready workers, a description of the second, a log of two lines, and no success with anything else.
pub(crate) struct FakeSupervisor {
    socket: PathBuf,
    connections: Arc<Mutex<Vec<UnixStream>>>,
}

impl FakeSupervisor {
    pub(crate) fn listen(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                kept.lock().unwrap().push(stream.try_clone().unwrap());
                thread::spawn(move || serve(stream));
            }
        });
        Self { socket: socket.to_owned(), connections }
    }
}

impl Drop for FakeSupervisor {
    /// As when a supervisor ends: nobody can connect any more, and whoever is connected is hung up on.
    fn drop(&mut self) {
        let removed = std::fs::remove_file(&self.socket);
        assert!(removed.is_ok() || thread::panicking(), "{removed:?}");
        for connection in self.connections.lock().unwrap().drain(..) {
            // A client that has left is gone already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Until the client leaves; it may do so at any time.
fn serve(mut stream: UnixStream) {
    let mut requests = Decoder::<Request>::new();
    let mut bytes = [0; 4096];
    let mut wanted = stream.write_all(&greeting());
    while wanted.is_ok() {
        let Ok(count @ 1..) = stream.read(&mut bytes) else { return };
        requests.push(&bytes[..count]);
        while let Some(request) = requests.next_json().unwrap() {
            wanted = stream.write_all(&answer(&request));
        }
    }
}

fn answer(request: &Request) -> Vec<u8> {
    let failed = |message: &str| encode_json(&Reply::Failed { code: 4, message: message.to_owned() });
    match request {
        Request::Status => encode_json(&Reply::Status(Box::new(status()))),
        Request::Describe { id: 1 } => encode_json(&Reply::Description(Box::new(description()))),
        Request::Describe { id } => {
            encode_json(&Reply::Failed { code: 2, message: format!("there is no worker w{id}") })
        }
        Request::Logs(wanted) => {
            assert!(wanted.follow && !wanted.json && wanted.source.is_none(), "{wanted:?}");
            [encode_json(&Reply::Done), b"w0| the first line\nw1| \x1b[31mthe second line\x1b[0m\n".to_vec()].concat()
        }
        Request::Reload { .. } => {
            let progress = encode_json(&Reply::Progress("w0 of generation 2 starts".to_owned()));
            [progress, failed("rolled back: w0 exited with 1\nits last words: no such table")].concat()
        }
        other => failed(&format!("{other:?} was not expected")),
    }
}

pub(crate) fn status() -> Status {
    Status {
        schema: SCHEMA.to_owned(),
        supervisor: SupervisorStatus {
            pid: 41_200,
            version: "0.1.0".to_owned(),
            uptime_seconds: 90_000.0,
            generation: 1,
            state: SupervisorState::Running,
            listen: vec!["127.0.0.1:8080".to_owned()],
            workers_wanted: 2,
        },
        workers: vec![worker(0), worker(1)],
        processes: Vec::new(),
        host: HostStatus::default(),
        dependencies: Vec::new(),
    }
}

pub(crate) fn description() -> Description {
    Description {
        schema: DESCRIBE_SCHEMA.to_owned(),
        worker: worker(1),
        command: vec!["worker".to_owned(), "serve".to_owned()],
        executable: "/usr/local/bin/worker".to_owned(),
        user: None,
        started_at: None,
        listen: vec!["127.0.0.1:8080".to_owned()],
        exits: Vec::new(),
        metrics: Vec::new(),
    }
}

fn worker(id: u32) -> WorkerStatus {
    WorkerStatus {
        id,
        pid: Some(41_277 + id as i32),
        generation: 1,
        state: State::Ready,
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
