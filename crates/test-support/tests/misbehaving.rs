//! The misbehaving program does what it is told, and nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use test_support::{GuardedChild, eventually, http, process};

const SOON: Duration = Duration::from_secs(10);

/// The program with somebody who listens to what it says of itself.
struct Worker {
    child: GuardedChild,
    notifications: UnixDatagram,
    _directory: TempDir,
}

impl Worker {
    fn start(words: &[&str]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_misbehaving")).args(words))
    }

    fn spawn(command: &mut Command) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let notifications = UnixDatagram::bind(&path).expect("a socket");
        notifications.set_read_timeout(Some(SOON)).expect("not zero");
        command.env("NOTIFY_SOCKET", &path).env("WORKER_ID", "1").stdout(Stdio::piped()).stderr(Stdio::null());
        Self { child: GuardedChild::spawn(command).expect("it starts"), notifications, _directory: directory }
    }

    /// The program with an inherited socket as descriptor 3, which a shell puts there.
    fn serving(words: &[&str]) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<&0 </dev/null"#, "sh"]);
        shell.arg(env!("CARGO_BIN_EXE_misbehaving")).stdin(OwnedFd::from(listener));
        let worker = Self::spawn(shell.args(words));
        worker.wait_for("READY=1");
        (worker, address)
    }

    fn next_notification(&self) -> String {
        let mut buffer = [0; 64];
        let length = self.notifications.recv(&mut buffer).expect("a notification");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn wait_for(&self, expected: &str) {
        while self.next_notification() != expected {}
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait_within(SOON).expect("the program ends").code()
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    http::get_blocking(address, path).expect("it answers").text()
}

#[test]
fn told_nothing_it_becomes_ready_and_ends_politely_on_term() {
    let mut worker = Worker::start(&[]);
    assert_eq!(worker.next_notification(), "READY=1");
    worker.child.signal(Signal::SIGTERM);
    worker.wait_for("STOPPING=1");
    assert_eq!(worker.exit_code(), Some(0));
}

#[test]
fn it_serves_inherited_sockets_and_finishes_what_it_is_at_after_term() {
    let (mut worker, address) = Worker::serving(&[]);
    assert_eq!(get(address, "/"), worker.child.pid().to_string());
    assert_eq!(get(address, "/worker"), "1:");
    assert!(get(address, "/environment").contains("WORKER_ID=1\n"));
    let slow = std::thread::spawn(move || get(address, "/sleep/200"));
    worker.wait_for("STATUS=sleeping");
    worker.child.signal(Signal::SIGTERM);
    assert_eq!(slow.join().unwrap(), "slept");
    assert_eq!(worker.exit_code(), Some(0));
}

#[test]
fn requests_make_it_exit_or_hang() {
    let (mut worker, address) = Worker::serving(&[]);
    assert!(http::get_blocking(address, "/exit/9").is_err());
    assert_eq!(worker.exit_code(), Some(9));

    let (mut worker, address) = Worker::serving(&[]);
    let mut hanging = TcpStream::connect(address).unwrap();
    hanging.write_all(b"GET /hang HTTP/1.1\r\n\r\n").unwrap();
    worker.wait_for("STATUS=hanging");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(stream.read(&mut [0; 1]).is_err());
    assert_eq!(worker.child.try_wait(), None);
}

#[test]
fn it_exits_before_ready_when_ready_and_later() {
    assert_eq!(Worker::start(&["exit=78"]).exit_code(), Some(78));
    for words in [["exit-when-ready=3"], ["exit-after=20:3"]] {
        let mut worker = Worker::start(&words);
        assert_eq!(worker.next_notification(), "READY=1");
        assert_eq!(worker.exit_code(), Some(3));
    }
}

#[test]
fn never_ready_it_beats_all_the_same() {
    assert_eq!(Worker::start(&["never-ready"]).next_notification(), "WATCHDOG=1");
}

#[test]
fn stuck_it_says_nothing_and_still_ends_on_term() {
    let mut worker = Worker::start(&["stuck", "print=2"]);
    let mut first = [0; 6];
    worker.child.child().stdout.take().unwrap().read_exact(&mut first).unwrap();
    worker.notifications.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(worker.notifications.recv(&mut [0; 64]).is_err());
    worker.child.signal(Signal::SIGTERM);
    assert_eq!(worker.exit_code(), Some(0));
}

#[test]
fn neither_deaf_nor_hanging_does_it_end_on_term() {
    for (words, last_words) in [(["ignore-term"], "READY=1"), (["hang-after=0"], "STATUS=hanging")] {
        let mut worker = Worker::start(&words);
        worker.wait_for(last_words);
        worker.child.signal(Signal::SIGTERM);
        assert_eq!(worker.child.wait_within(Duration::from_millis(100)), None, "{words:?}");
    }
}

#[test]
fn it_leaks_memory() {
    let worker = Worker::start(&["leak=200000000"]);
    eventually(SOON, || process::rss_bytes(worker.child.pid()) > 30_000_000);
}

#[test]
fn it_leaves_a_grandchild_behind() {
    let mut worker = Worker::start(&["grandchild"]);
    let grandchild = eventually(SOON, || process::children(worker.child.pid()).first().copied());
    worker.child.signal(Signal::SIGKILL);
    assert_eq!(worker.exit_code(), None);
    assert!(process::is_alive(grandchild));
    process::signal(grandchild, Signal::SIGKILL);
}

#[test]
fn it_prints_as_many_lines_as_asked_for() {
    let mut worker = Worker::start(&["print=1000", "exit-when-ready=0"]);
    let stdout = worker.child.child().stdout.take().unwrap();
    assert_eq!(std::io::read_to_string(stdout).unwrap().lines().count(), 500);
}

#[test]
fn told_for_another_worker_or_without_the_file_it_behaves() {
    for words in [["only=0", "exit=1"], ["while=/nonexistent", "exit=1"]] {
        assert_eq!(Worker::start(&words).next_notification(), "READY=1");
    }
    assert_eq!(Worker::start(&["only=1", "while=/proc", "exit=1"]).exit_code(), Some(1));
}

#[test]
fn where_it_is_not_to_misbehave_it_becomes_another_program() {
    let words = ["only=0", "exit=1", "else=/usr/bin/env"];
    let mut worker = Worker::start(&words);
    let stdout = worker.child.child().stdout.take().unwrap();
    // `env` with the same arguments sets variables and shows them all.
    let shown = std::io::read_to_string(stdout).unwrap();
    assert!(shown.contains("exit=1\n") && shown.contains("WORKER_ID=1\n"), "{shown}");
    assert_eq!(Worker::start(&["only=1", "exit=1", "else=/usr/bin/env"]).exit_code(), Some(1));
}

#[test]
fn words_may_stand_in_a_file_which_need_not_be_there() {
    let directory = tempfile::tempdir().unwrap();
    let words = format!("from={}", directory.path().join("words").display());
    assert_eq!(Worker::start(&[&words]).next_notification(), "READY=1");
    std::fs::write(directory.path().join("words"), "print=2\nexit=9\n").unwrap();
    assert_eq!(Worker::start(&[&words]).exit_code(), Some(9));
}

#[test]
fn nonsense_is_refused() {
    assert_eq!(Worker::start(&["exit=soon"]).exit_code(), Some(2));
}
