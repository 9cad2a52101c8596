//! A Redis server of the test's own.

mod cluster;
mod sentinel;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::guard::GuardedChild;
use crate::places::{free_port, short_temp_dir};
use crate::resp;

pub use self::cluster::RedisCluster;
pub use self::sentinel::RedisSentinel;

/// How long a start may take, on a machine that is busy compiling.
const START: Duration = Duration::from_secs(20);

/// A private server without persistence, on a unix socket and on a port of the loopback address. It ends with this value, or
/// with the test process at the latest. Methods take `&self`, so that a test can share it between threads.
#[derive(Debug)]
pub struct Redis {
    server: Mutex<GuardedChild>,
    directory: TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts a server that nobody else uses: for tests that stop, kill or flush it.
    ///
    /// # Panics
    /// When there is no `redis-server` or `valkey-server` on the path, or it does not come up.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// [`Redis::start`] with further arguments, for example `["--maxmemory", "1mb"]`.
    pub fn start_with(arguments: &[&str]) -> Self {
        let directory = short_temp_dir("bw-redis-");
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut last_error = String::new();
        for _ in 0..5 {
            let port = free_port();
            match launch(directory.path(), port, &arguments) {
                Ok(server) => {
                    return Self { server: Mutex::new(server), directory, port, arguments };
                }
                Err(error) => last_error = error,
            }
        }
        panic!("{last_error}");
    }

    /// The server that all tests of this process share. Use [`crate::unique_prefix`] for keys, and never stop it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// `redis+unix:///…/redis.sock`.
    pub fn unix_url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Where it listens on TCP.
    pub fn address(&self) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Process id of the server that runs now.
    pub fn pid(&self) -> u32 {
        self.server().pid()
    }

    /// Freezes it (SIGSTOP): connections stay open and nothing answers.
    pub fn stop(&self) {
        self.server().signal(Signal::SIGSTOP);
    }

    /// Lets it run on after [`Redis::stop`].
    pub fn cont(&self) {
        self.server().signal(Signal::SIGCONT);
    }

    /// Kills it with SIGKILL and waits until it is gone: connections break and new ones are refused.
    pub fn kill(&self) {
        self.server().kill();
    }

    /// Starts it again, empty, on the same port and socket; a server that still runs is killed first.
    pub fn restart(&self) {
        let mut server = self.server();
        server.kill();
        let end = Instant::now() + START;
        loop {
            match launch(self.directory.path(), self.port, &self.arguments) {
                Ok(replacement) => {
                    *server = replacement;
                    return;
                }
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
        }
    }

    /// Sends one command: arrays become lines, nil an empty string.
    ///
    /// # Panics
    /// When the server does not answer within 5 s, or answers an error.
    pub fn command(&self, arguments: &[&str]) -> String {
        self.try_command(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// [`Redis::command`] for commands that may fail; the error is Redis's own or that of the connection.
    ///
    /// # Errors
    /// An error reply, or no reply.
    pub fn try_command(&self, arguments: &[&str]) -> Result<String, String> {
        resp::command(&self.socket(), arguments).map_err(|error| error.to_string())?
    }

    /// How often `command` (lower case, as in `INFO commandstats`) was called since the start or `CONFIG RESETSTAT`. What a script
    /// calls is counted as well.
    pub fn calls(&self, command: &str) -> u64 {
        let statistics = self.command(&["INFO", "commandstats"]);
        let line = statistics.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
    }

    fn server(&self) -> MutexGuard<'_, GuardedChild> {
        // A test that panicked while holding it leaves a child that can still be killed.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a server and waits until it answers; the error tells what its log says.
fn launch(directory: &Path, port: u16, arguments: &[String]) -> Result<GuardedChild, String> {
    let socket = directory.join("redis.sock");
    let log = directory.join("redis.log");
    let mut server = spawn(directory, &socket, &log, port, arguments)?;
    let end = Instant::now() + START;
    loop {
        if matches!(resp::command(&socket, &["PING"]), Ok(Ok(reply)) if reply == "PONG") {
            return Ok(server);
        }
        let exit = server.try_wait();
        if exit.is_some() || Instant::now() >= end {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("the private Redis on port {port} did not come up ({exit:?}); its log:\n{said}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn spawn(directory: &Path, socket: &Path, log: &Path, port: u16, arguments: &[String]) -> Result<GuardedChild, String> {
    let mut reasons = Vec::new();
    for program in ["redis-server", "valkey-server"] {
        let mut command = Command::new(program);
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--unixsocketperm", "700", "--unixsocket"])
            .arg(socket)
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"])
            .arg(directory)
            .arg("--logfile")
            .arg(log)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match GuardedChild::spawn_with(&mut command, Signal::SIGKILL, Some(directory)) {
            Ok(server) => return Ok(server),
            Err(error) => reasons.push(format!("{program}: {error}")),
        }
    }
    Err(format!("no Redis to test with ({}); install it: apt-get install redis-server", reasons.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::{eventually, process, unique_prefix};

    #[test]
    fn the_shared_server_keeps_what_is_written_and_counts_commands() {
        let redis = Redis::shared();
        let key = unique_prefix();
        assert_eq!(redis.command(&["SET", &key, "a b\r\nc"]), "OK");
        assert_eq!(redis.command(&["GET", &key]), "a b\r\nc");
        assert!(redis.calls("get") >= 1);
        assert_eq!(redis.calls("lolwut"), 0);
        assert!(redis.try_command(&["INCR", &key]).unwrap_err().contains("not an integer"));
    }

    #[test]
    fn a_killed_server_refuses_and_comes_back_on_the_same_port_and_socket() {
        let redis = Redis::start();
        let (first, url) = (redis.pid(), redis.url());
        redis.kill();
        assert!(!process::is_alive(first));
        assert!(TcpStream::connect(redis.address()).is_err());
        redis.restart();
        assert_ne!(redis.pid(), first);
        assert_eq!(redis.url(), url);
        assert_eq!(redis.command(&["PING"]), "PONG");
        TcpStream::connect(redis.address()).unwrap();
    }

    #[test]
    fn a_stopped_server_is_frozen_until_it_is_continued() {
        let redis = Redis::start();
        redis.stop();
        eventually(Duration::from_secs(5), || process::state(redis.pid()) == Some('T'));
        redis.cont();
        assert_eq!(redis.command(&["PING"]), "PONG");
    }

    #[test]
    fn nothing_is_left_after_a_drop() {
        let redis = Redis::start();
        let (pid, directory) = (redis.pid(), redis.directory.path().to_owned());
        drop(redis);
        assert!(!process::is_alive(pid));
        assert!(!directory.exists());
    }
}
