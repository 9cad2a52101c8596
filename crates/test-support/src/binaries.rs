//! Where the programs under test lie.

use std::path::{Path, PathBuf};

/// The programs of this workspace, built with the same profile as the running test.
///
/// # Panics
/// Every function does when its program is missing: `cargo test` does not build the programs of other packages.
#[derive(Debug)]
pub struct Binaries;

impl Binaries {
    /// The parent process and command line.
    pub fn supervisor() -> PathBuf {
        find("supervisor")
    }

    /// The process that serves.
    pub fn worker() -> PathBuf {
        find("worker")
    }

    /// The program that takes `LISTEN_FDS` and behaves as badly as it is told to.
    pub fn misbehaving() -> PathBuf {
        find("misbehaving")
    }
}

/// Looks in `target/<profile>`, above the test executable in `target/<profile>/deps`.
fn find(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let profile = test.parent().and_then(Path::parent).expect("cargo keeps tests in target/<profile>/deps");
    let path = profile.join(name);
    assert!(path.exists(), "there is no {}; build it first: cargo build --workspace --bins", path.display());
    path
}
