//! What a reload finds out anew, and what it keeps.

use std::fs;

use clap::Parser;

use super::*;
use crate::arguments::{Arguments, Command};
use crate::running::{Respec, respec};

/// A directory with a configuration file, and `start` with `arguments`.
struct Case {
    directory: tempfile::TempDir,
    respec: Respec,
}

impl Case {
    fn new(file: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bellwether.toml");
        let config = path.to_str().unwrap().to_owned();
        fs::write(&path, file).unwrap();
        let state_dir = directory.path().join("state").to_str().unwrap().to_owned();
        let words = ["supervisor", "--config", &config, "--state-dir", &state_dir, "start"];
        let arguments = Arguments::try_parse_from(words.iter().chain(arguments)).unwrap();
        let Command::Start(start) = &arguments.command else { panic!("start") };
        let sources = Sources { environment: Vec::new(), ..settings::running_sources(&arguments.global, &start.run) };
        let respec = respec(planner(&arguments.global, sources, start, 4));
        Self { directory, respec }
    }

    fn write(&self, text: &str) {
        fs::write(self.directory.path().join("bellwether.toml"), text).unwrap();
    }
}

#[test]
fn a_reload_reads_the_file_anew_and_keeps_the_flags() {
    let case = Case::new("[supervisor]\nworkers = 2\n", &["--listen", "127.0.0.1:1", "--", "sleep", "9"]);
    let before = (case.respec)(None).unwrap();
    case.write("[supervisor]\nworkers = 3\nlisten = [\"127.0.0.1:2\"]\ncanary = \"7s\"\n");
    let after = (case.respec)(None).unwrap();
    assert_eq!((before.workers, after.workers), (2, 3));
    assert_eq!(after.canary.as_secs(), 7);
    assert_eq!(after.listen, before.listen, "the flag still wins");
}

#[test]
fn a_number_that_follows_the_cores_is_the_same_number_at_every_reload() {
    let case = Case::new("[supervisor]\nworkers = \"-1\"\n", &["--", "sleep", "9"]);
    assert_eq!((case.respec)(None).unwrap().workers, 3);
    assert_eq!((case.respec)(None).unwrap().workers, 3);
}

#[test]
fn a_reload_with_mistakes_in_the_file_says_each_with_its_place() {
    let case = Case::new("", &["--", "sleep", "9"]);
    case.write("[supervisor]\nworkres = 2\n[http]\nkeep_alive = 5\n");
    let message = (case.respec)(None).unwrap_err();
    for part in ["the configuration is invalid", "bellwether.toml:2:1: ", "did you mean", "bellwether.toml:4:14: "] {
        assert!(message.contains(part), "{part} is missing in\n{message}");
    }
    case.write("");
    assert!((case.respec)(None).is_ok(), "a mistake that was mended is forgotten");
}

#[test]
fn a_reload_may_name_another_worker_and_otherwise_takes_the_one_of_the_start() {
    let case = Case::new("", &["--worker-bin", "/opt/first"]);
    let executable = |binary: Option<&Path>| match (case.respec)(binary).unwrap().program {
        Program::Own { executable, .. } => executable,
        Program::Foreign { .. } => panic!("our own worker"),
    };
    assert_eq!(executable(Some(Path::new("/opt/second"))), Path::new("/opt/second"));
    assert_eq!(executable(None), Path::new("/opt/first"));
}

#[test]
fn another_worker_for_a_program_of_the_users_is_refused() {
    let message = (Case::new("", &["--", "node", "a.js"]).respec)(Some(Path::new("/opt/worker"))).unwrap_err();
    assert_eq!(message, "there is no worker to replace: node runs in its place");
}
