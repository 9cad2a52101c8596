//! A master, its replica and the sentinel that watches over them.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::guard::GuardedChild;
use crate::places::{free_port, short_temp_dir};
use crate::{Redis, eventually, resp};

/// How long the servers may take to find one another, and to agree on another master.
const AGREE: Duration = Duration::from_secs(60);

/// One sentinel, whose word alone counts.
#[derive(Debug)]
pub struct RedisSentinel {
    master: Redis,
    replica: Redis,
    port: u16,
    directory: TempDir,
    _sentinel: GuardedChild,
}

impl RedisSentinel {
    /// Starts all three and waits until the replica follows and the sentinel knows both.
    ///
    /// # Panics
    /// As [`Redis::start`] does.
    pub fn start() -> Self {
        let master = Redis::start_with(&["--repl-diskless-sync-delay", "0"]);
        let of_master = master.address().port().to_string();
        let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &of_master]);
        let (directory, port) = (short_temp_dir("bw-sentinel-"), free_port());
        let file = directory.path().join("sentinel.conf");
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("unixsocket {}", directory.path().join("sentinel.sock").display()),
            format!("dir {}", directory.path().display()),
            format!("sentinel monitor main 127.0.0.1 {of_master} 1"),
            "sentinel down-after-milliseconds main 500".to_owned(),
            "sentinel failover-timeout main 3000".to_owned(),
        ];
        std::fs::write(&file, lines.join("\n")).expect("a fresh directory takes a file");
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let sentinel = GuardedChild::spawn_with(&mut command, Signal::SIGKILL, Some(directory.path()));
        let all =
            Self { master, replica, port, directory, _sentinel: sentinel.expect("redis-server runs as a sentinel") };
        eventually(AGREE, || all.replica.command(&["INFO", "replication"]).contains("master_link_status:up"));
        eventually(AGREE, || {
            all.ask(&["INFO", "sentinel"]).contains("status=ok") && all.ask(&["INFO", "sentinel"]).contains("slaves=1")
        });
        all
    }

    /// `redis-sentinel://` with the one sentinel and the name of the service.
    pub fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}/main", self.port)
    }

    /// The server that is master at first.
    pub fn master(&self) -> &Redis {
        &self.master
    }

    /// The server that takes over.
    pub fn replica(&self) -> &Redis {
        &self.replica
    }

    /// Kills the master and waits until the replica has taken over.
    pub fn fail_over(&self) {
        self.master.kill();
        eventually(AGREE, || self.replica.command(&["INFO", "replication"]).contains("role:master"));
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let socket = self.directory.path().join("sentinel.sock");
        resp::command(&socket, arguments).ok().and_then(Result::ok).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replica_has_what_the_master_had_and_takes_over() {
        let sentinel = RedisSentinel::start();
        sentinel.master().command(&["SET", "key", "value"]);
        // It may be loading what the master has sent.
        eventually(AGREE, || sentinel.replica().try_command(&["GET", "key"]).is_ok_and(|value| value == "value"));
        sentinel.fail_over();
        assert_eq!(sentinel.replica().command(&["SET", "key", "other"]), "OK");
    }
}
