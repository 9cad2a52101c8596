//! Another supervisor program takes the place of the one that runs: in the same process, with the same sockets and workers.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use test_support::{Binaries, Signal, eventually, process};

use crate::cluster::Cluster;
use crate::traffic::{Kind, Traffic};

/// A cluster whose supervisor is a file of its own, which can be replaced as an installation does it.
struct Installed {
    cluster: Cluster,
    program: PathBuf,
    _directory: TempDir,
}

/// What an upgrade leaves as it was.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    supervisor: u64,
    workers: Vec<(u64, u32, u64)>,
    redis: u32,
    listeners: BTreeSet<u64>,
    wanted: u64,
}

impl Installed {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("supervisor");
        install(&program, &fs::read(Binaries::supervisor()).unwrap());
        let configuration = "[supervisor]\ncanary = \"300ms\"\n";
        let cluster = Cluster::builder().configuration(configuration).executable(&program).start();
        Self { cluster, program, _directory: directory }
    }

    fn kept(&self) -> Kept {
        let status = self.cluster.status().unwrap();
        Kept {
            supervisor: status["supervisor"]["pid"].as_u64().unwrap(),
            workers: self.cluster.ready_workers().iter().map(|one| (one.id, one.pid, one.restarts)).collect(),
            redis: self.cluster.redis_pid(),
            listeners: process::listening_sockets(self.cluster.address),
            wanted: status["supervisor"]["workers_wanted"].as_u64().unwrap(),
        }
    }

    /// How often a program has gone on in another one's place.
    fn upgrades(&self) -> usize {
        self.cluster.output().matches("goes on in the place of").count()
    }
}

/// Puts a file in the place of another in one step.
fn install(program: &Path, content: &[u8]) {
    let new = program.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, program).unwrap();
}

#[test]
fn an_upgrade_under_load_keeps_process_sockets_and_workers_and_loses_nothing() {
    let mut installed = Installed::start();
    assert!(installed.cluster.command(&["scale", "3"]).status.success());
    let before = installed.kept();
    assert_eq!((before.supervisor, before.listeners.len()), (u64::from(installed.cluster.pid()), 3));
    let traffic = Traffic::start(&installed.cluster);
    for round in 1..=3 {
        install(&installed.program, &fs::read(Binaries::supervisor()).unwrap());
        let output = installed.cluster.command(&["upgrade"]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        eventually(Duration::from_secs(10), || installed.upgrades() == 2 * round - 1);
        installed.cluster.signal(Signal::SIGUSR2);
        eventually(Duration::from_secs(10), || installed.upgrades() == 2 * round);
        assert_eq!(installed.kept(), before);
    }
    assert_eq!(process::executable(installed.cluster.pid()), Some(installed.program.clone()));
    // It looks after everything as the one before it did.
    let cluster = &installed.cluster;
    cluster.never_below(3, || assert!(cluster.command(&["reload"]).status.success()));
    let report = traffic.end();
    println!("{report}");
    report.assert_clean(5);
    let victim = cluster.ready_workers()[2].clone();
    assert!(process::signal(victim.pid, Signal::SIGKILL));
    eventually(Duration::from_secs(5), || {
        cluster.ready_workers().iter().any(|worker| worker.id == 2 && worker.pid != victim.pid)
    });
    let logs = String::from_utf8_lossy(&cluster.command(&["logs", "w2", "--lines", "100"]).stdout).into_owned();
    assert!(logs.contains("Worker is ready"), "its output is not captured any more: {logs}");
    assert_eq!(process::listening_sockets(cluster.address), before.listeners);
}

#[test]
fn a_program_that_is_none_changes_nothing() {
    let installed = Installed::start();
    let before = installed.kept();
    let traffic = Traffic::of(&installed.cluster, &[Kind::Busy, Kind::PerRequest, Kind::Balancer]);
    let bad: [&[u8]; 3] = [b"garbage", b"#!/bin/sh\nexit 1\n", &fs::read(Binaries::worker()).unwrap()];
    for content in bad {
        install(&installed.program, content);
        let output = installed.cluster.command(&["upgrade"]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("when it was tried; nothing has changed"), "{message}");
        assert_eq!(installed.kept(), before);
    }
    fs::remove_file(&installed.program).unwrap();
    assert_eq!(installed.cluster.command(&["upgrade"]).status.code(), Some(1));
    assert_eq!((installed.kept(), installed.upgrades()), (before, 0));
    traffic.end().assert_clean(5);
    // It was never anything but the first program, and goes on to be.
    assert!(installed.cluster.command(&["reload"]).status.success());
}
