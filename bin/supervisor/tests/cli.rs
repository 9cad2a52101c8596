//! The command line word for word: help texts, usage errors, exit codes and what is printed, as `tests/cli/**/*.trycmd` tell it.
//!
//! After a change that is meant, `TRYCMD=overwrite cargo test -p supervisor --test cli` writes what is printed now into those files; read
//! the difference before it is committed. A new command needs a file in `tests/cli/help` that holds its line `$ supervisor … --help`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use trycmd::TestCases;

/// What may be set where the tests run, and decides about results. Set to nothing they count as not set.
const INFLUENCES: [&str; 16] = [
    "CLICOLOR_FORCE",
    "CONFIGURATION_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "DATABASE_URL",
    "HOST",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "PORT",
    "REDIS_URL",
    "RUNTIME_DIRECTORY",
    "RUST_LOG",
    "STATE_DIRECTORY",
    "TRUSTED_PROXIES",
    "WEB_CONCURRENCY",
    "XDG_RUNTIME_DIR",
];

/// Cases that see the same terminal and environment everywhere.
fn cases() -> TestCases {
    let cases = TestCases::new();
    cases.env("COLUMNS", "100").env("NO_COLOR", "1").env("TERM", "dumb");
    for name in INFLUENCES {
        cases.env(name, "");
    }
    cases.insert_var("[VERSION]", env!("CARGO_PKG_VERSION")).unwrap();
    cases
}

#[test]
fn commands_print_and_end_as_written_down() {
    cases().case("tests/cli/*.trycmd");
}

#[test]
fn help_texts_are_as_written_down() {
    cases().case("tests/cli/help/*.trycmd");
}

#[test]
fn every_command_has_its_help_written_down_and_the_short_form_is_the_same() {
    let directory = tempfile::tempdir().unwrap();
    supervisor(&["man", directory.path().to_str().unwrap()]);
    let commands = stems(directory.path(), ".1");
    let written_down = stems(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help"), ".trycmd");
    assert_eq!(written_down, commands, "left: files in tests/cli/help, right: commands");
    for command in &commands {
        let words: Vec<_> = command.split('-').skip(1).collect();
        let (short, long) =
            (supervisor(&[&words[..], &["-h"]].concat()), supervisor(&[&words[..], &["--help"]].concat()));
        // Only the program's own help is longer, by examples and exit codes.
        assert!(short == long || (words.is_empty() && long.len() > short.len()), "{command}");
    }
}

fn supervisor(arguments: &[&str]) -> String {
    let ended = Command::new(env!("CARGO_BIN_EXE_supervisor")).args(arguments).output().unwrap();
    assert!(ended.status.success(), "{arguments:?}");
    String::from_utf8(ended.stdout).unwrap()
}

/// The names of files that end with `extension`, without it.
fn stems(directory: &Path, extension: &str) -> BTreeSet<String> {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(extension).map(str::to_owned)).collect()
}
