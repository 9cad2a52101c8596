//! Verbs for the tests: start a supervisor, talk to it and its workers, wait for something within a bound.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use supervise::control::{Client, Reply, Request};
use supervise::status::{State, Status, WorkerStatus};
use tempfile::TempDir;

/// Nothing in these tests takes longer than this unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A supervisor that is ready, with everything it has written so far.
pub(crate) struct Supervised {
    pub(crate) directory: TempDir,
    pub(crate) address: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

/// A directory with this `mode` for all workers.
pub(crate) fn directory(mode: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), "mode", mode);
    directory
}

/// Tells workers that start from now on what to do.
pub(crate) fn set_mode(directory: &Path, file: &str, mode: &str) {
    fs::write(directory.join(file), format!("{mode} ")).unwrap();
}

/// The command that runs this binary as a supervisor in `directory`.
pub(crate) fn command(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("role-supervisor").arg(format!("directory={}", directory.display())).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for `condition`, failing with `what` when it takes too long.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    within(PATIENCE, what, &mut condition);
}

/// Waits for `condition` no longer than `limit`.
pub(crate) fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// How long it takes until `condition` holds; gives up, without failing, when it takes too long.
fn time_until(mut condition: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition() && started.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(2));
    }
    started.elapsed()
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

pub(crate) fn is_alive(pid: i32) -> bool {
    // A zombie that nobody has reaped yet does not count.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The process that writes the output of supervisor `pid`.
pub(crate) fn log_writer_of(pid: i32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let is_log_writer =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "log-writer");
    children.split_whitespace().map(|pid| pid.parse().unwrap()).find(is_log_writer).expect("it is a child")
}

/// The memory a process shares with no other and no file.
pub(crate) fn own_memory_bytes(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Asks a worker to answer after `delay`.
pub(crate) fn ask(address: &str, delay: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{}", delay.as_millis())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer.trim().to_owned()) }
}

impl Supervised {
    /// Starts one with well-behaved workers and waits until it is ready.
    pub(crate) fn start(words: &[&str]) -> Self {
        Self::start_in(directory(""), words)
    }

    pub(crate) fn start_in(directory: TempDir, words: &[&str]) -> Self {
        let mut supervised = Self::launch(directory, words);
        supervised.wait_until_ready();
        supervised
    }

    /// Starts one by a command of the test's own and waits until it is ready.
    pub(crate) fn adopt(directory: TempDir, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut supervised = Self::follow(directory, command);
        supervised.wait_until_ready();
        supervised
    }

    /// The inodes of all sockets of the supervisor.
    pub(crate) fn sockets(&self) -> BTreeSet<String> {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let links = descriptors.filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok());
        links.map(|link| link.display().to_string()).filter(|link| link.starts_with("socket:")).collect()
    }

    /// The only child of the process that was started.
    pub(crate) fn child_of_starter(&self) -> i32 {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).unwrap();
        children.trim().parse().expect("it has one child")
    }

    fn wait_until_ready(&mut self) {
        eventually("the supervisor is ready", || self.line("READY ").is_some());
        self.address = self.line("READY ").unwrap()["READY ".len()..].to_owned();
    }

    /// Starts one that may never be ready.
    pub(crate) fn launch(directory: TempDir, words: &[&str]) -> Self {
        let command = command(directory.path(), words);
        Self::follow(directory, command)
    }

    /// Starts one by a command of the test's own that may never be ready.
    pub(crate) fn follow(directory: TempDir, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn({
            let lines = Arc::clone(&lines);
            move || stdout.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line))
        });
        Self { directory, address: String::new(), child, lines }
    }

    /// Starts one whose output nobody reads, and waits until its workers are ready.
    pub(crate) fn start_unread(directory: TempDir, words: &[&str]) -> Self {
        let command = command(directory.path(), words);
        Self::start_unheard(directory, command)
    }

    /// Starts one whose output becomes the file `stdout` in its directory, and waits until its workers are ready.
    pub(crate) fn start_into_file(directory: TempDir, words: &[&str]) -> Self {
        let mut command = command(directory.path(), words);
        command.stdout(fs::File::create(directory.path().join("stdout")).unwrap());
        Self::start_unheard(directory, command)
    }

    fn start_unheard(directory: TempDir, mut command: Command) -> Self {
        let child = command.spawn().unwrap();
        let supervised = Self { directory, address: String::new(), child, lines: Arc::default() };
        eventually("the workers are ready", || {
            let status = Client::connect(&supervised.socket()).ok().and_then(|mut client| client.status().ok());
            status.is_some_and(|status| status.workers.iter().all(|worker| worker.state == State::Ready))
        });
        supervised
    }

    /// What [`Supervised::start_unread`] has left unread.
    pub(crate) fn unread_output(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("supervisor.sock")
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    pub(crate) fn status(&self) -> Status {
        self.client().status().unwrap()
    }

    pub(crate) fn worker_pid(&self, slot: usize) -> Option<i32> {
        self.status().workers[slot].pid
    }

    /// The id of the ready worker in `slot` that is not `before`.
    pub(crate) fn replacement(&self, slot: usize, before: i32) -> Option<i32> {
        let worker = &self.status().workers[slot];
        worker.pid.filter(|pid| worker.state == State::Ready && *pid != before)
    }

    /// The processes of all ready workers, by slot.
    pub(crate) fn workers(&self) -> Vec<i32> {
        let ready = |worker: &WorkerStatus| (worker.state == State::Ready).then_some(worker.pid?);
        self.status().workers.iter().filter_map(ready).collect()
    }

    /// Asks for a change and waits for its last word.
    pub(crate) fn change(&self, request: &Request) -> Reply {
        self.client().command(request).unwrap().map(Result::unwrap).last().expect("there is a last word")
    }

    /// How many descriptors the supervisor has open.
    pub(crate) fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Kills the worker in `slot` again and again; tells how long each time until the next one is ready.
    pub(crate) fn replacement_times(&self, slot: usize, kills: usize) -> Vec<Duration> {
        let replace = |_| {
            let before = self.worker_pid(slot).unwrap();
            signal(before, Signal::SIGKILL);
            time_until(|| self.replacement(slot, before).is_some())
        };
        (0..kills).map(replace).collect()
    }

    pub(crate) fn ask(&self, delay_ms: u64) -> std::io::Result<String> {
        ask(&self.address, Duration::from_millis(delay_ms))
    }

    /// The first line so far that contains `part`.
    pub(crate) fn line(&self, part: &str) -> Option<String> {
        self.lines.lock().unwrap().iter().find(|line| line.contains(part)).cloned()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    /// Waits for the supervisor to end; gives its exit code.
    pub(crate) fn ends(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        within(limit, "the supervisor ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("output:\n{}", self.lines().join("\n"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Clients that ask again and again, each on a connection of its own, until they are told to stop.
struct Load {
    failed: AtomicU32,
    succeeded: AtomicU32,
    ended: AtomicBool,
}

/// Runs `body` while four clients are busy; none of their requests may fail.
pub(crate) fn under_load<T>(supervised: &Supervised, body: impl FnOnce() -> T) -> T {
    let load = Load { failed: AtomicU32::new(0), succeeded: AtomicU32::new(0), ended: AtomicBool::new(false) };
    let (result, errors) = thread::scope(|scope| {
        let client = || {
            let mut last = None;
            while !load.ended.load(Ordering::Relaxed) {
                match supervised.ask(0) {
                    Ok(_) => load.succeeded.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        last = Some(error);
                        load.failed.fetch_add(1, Ordering::Relaxed)
                    }
                };
            }
            last
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        let slow = scope.spawn(|| {
            while !load.ended.load(Ordering::Relaxed) {
                supervised.ask(1_000).expect("a slow request is finished");
            }
        });
        // A panic must not leave the clients running: the scope would wait for them for ever.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        load.ended.store(true, Ordering::Relaxed);
        slow.join().unwrap();
        let errors: Vec<_> = clients.into_iter().filter_map(|client| client.join().unwrap()).collect();
        (result, errors)
    });
    let (failed, succeeded) = (load.failed.into_inner(), load.succeeded.into_inner());
    println!("{succeeded} requests, {failed} failed {errors:?}");
    let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(failed, 0, "{errors:?}");
    assert!(succeeded > 0, "{succeeded}");
    result
}
