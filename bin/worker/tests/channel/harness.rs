//! A worker whose supervisor is the test: sockets, channel and environment are what a supervisor would hand over.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use supervise::frame::{Decoder, Dependency, FromWorker, Statistics, ToWorker, encode, greeting};
use tempfile::TempDir;
use test_support::{GuardedChild, eventually, http, process};

/// How long a test waits for what has to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Moves the three sockets from the standard streams, the only descriptors that can be handed to a child, to where a supervisor puts them.
const PLACE_DESCRIPTORS: &str = r#"
exec 3<&0 4<&1 5<&2 0</dev/null 1>"$LOG" 2>&1
export LISTEN_PID=$$
exec "$@"
"#;

/// What a worker has said, at what time.
pub(crate) type Said = (Instant, FromWorker);

/// A running worker.
pub(crate) struct Worker {
    pub(crate) child: GuardedChild,
    /// Where its clients connect; the test holds the socket, too, as a supervisor does.
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    channel: UnixStream,
    decoder: Decoder<FromWorker>,
    said: Vec<Said>,
    directory: TempDir,
}

impl Worker {
    /// Starts one with a SQLite database of its own and waits for its first report. `redis` is a URL, of a server that may be away.
    pub(crate) fn start(redis: &str) -> Self {
        Self::start_with(redis, &[])
    }

    /// The same with more `settings`, as `key=value`.
    pub(crate) fn start_with(redis: &str, settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let worker = |verb: &[&str]| {
            let mut command = Command::new("sh");
            command.args(["-c", PLACE_DESCRIPTORS, "sh", env!("CARGO_BIN_EXE_worker")]).args(verb);
            command.arg(format!("--set=supervisor.state_dir={:?}", directory.path()));
            command.args(settings.iter().map(|setting| format!("--set={setting}")));
            command.current_dir(directory.path()).env("LOG", directory.path().join("log")).env("REDIS_URL", redis);
            command
        };
        let migrated = worker(&["db", "migrate"]).stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(migrated.success());
        let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [address, admin] = [0, 1].map(|index: usize| listeners[index].local_addr().unwrap());
        let [http, admin_listener] = listeners.map(OwnedFd::from);
        let (channel, theirs) = UnixStream::pair().unwrap();
        let mut command = worker(&[]);
        command.stdin(http).stdout(admin_listener).stderr(OwnedFd::from(theirs));
        command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "http:admin").env("BELLWETHER_CHANNEL_FD", "5");
        command.env("WORKER_ID", "3").env("BELLWETHER_WORKERS", "4").env("BELLWETHER_KILL_TIMEOUT_MS", "5000");
        let child = GuardedChild::spawn(&mut command).unwrap();
        // What the command still holds would keep the listeners and the channel open.
        drop(command);
        (&channel).write_all(&greeting()).unwrap();
        channel.set_nonblocking(true).unwrap();
        let decoder = Decoder::new();
        let mut worker = Self { child, address, admin, channel, decoder, said: Vec::new(), directory };
        worker.hear("a report", |said| matches!(said, FromWorker::Statistics(_)).then_some(()));
        worker
    }

    /// Waits until something said from now on is what `wanted` looks for.
    #[track_caller]
    pub(crate) fn hear<T>(&mut self, what: &str, wanted: impl Fn(&FromWorker) -> Option<T>) -> T {
        let mut next = self.said.len();
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && self.child.try_wait().is_none() {
            self.listen();
            if let Some(found) = self.said[next..].iter().find_map(|(_, said)| wanted(said)) {
                return found;
            }
            next = self.said.len();
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("not heard: {what}\n{}", self.log());
    }

    /// Everything it has said of its dependencies, oldest first.
    pub(crate) fn dependencies(&mut self) -> Vec<Vec<Dependency>> {
        self.listen();
        let told = self.said.iter().filter_map(|(_, said)| match said {
            FromWorker::Dependencies(dependencies) => Some(dependencies.clone()),
            _ => None,
        });
        told.collect()
    }

    /// Its signs of life so far.
    pub(crate) fn beats(&mut self) -> Vec<(Instant, Statistics)> {
        self.listen();
        let beats = self.said.iter().filter_map(|(at, said)| match said {
            FromWorker::Statistics(statistics) => Some((*at, *statistics)),
            _ => None,
        });
        beats.collect()
    }

    pub(crate) fn everything(&mut self) -> Vec<FromWorker> {
        self.listen();
        self.said.iter().map(|(_, said)| said.clone()).collect()
    }

    pub(crate) fn tell(&self, order: &ToWorker) {
        let mut frame = &encode(order)[..];
        while !frame.is_empty() {
            match (&self.channel).write(frame) {
                Ok(count) => frame = &frame[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn tell_to_adopt(&self, listener: &TcpListener) {
        process::send_with_descriptor(&self.channel, &encode(&ToWorker::Adopt), listener.as_fd()).unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> http::Response {
        http::get_blocking(self.address, path).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits for its end while listening, so that nothing keeps it; gives its exit code.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> Option<i32> {
        let status = eventually(PATIENCE, || {
            self.listen();
            self.child.try_wait()
        });
        self.listen();
        status.code()
    }

    fn listen(&mut self) {
        let mut bytes = [0; 64 * 1024];
        while let Ok(count @ 1..) = self.channel.read(&mut bytes) {
            self.decoder.push(&bytes[..count]);
        }
        while let Some(said) = self.decoder.next_message().unwrap() {
            self.said.push((Instant::now(), said));
        }
    }
}
