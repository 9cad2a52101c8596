//! A shell in a directory of its own, without the caller's environment.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use test_support::GuardedChild;

/// Where commands are typed.
pub(crate) struct Shell {
    directory: tempfile::TempDir,
    supervisor: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self::with(Path::new(env!("CARGO_BIN_EXE_supervisor")))
    }

    /// A shell in which `supervisor` is the file at that path.
    pub(crate) fn with(supervisor: &Path) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), supervisor: supervisor.to_owned() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.supervisor);
        command.args(arguments).current_dir(self.directory.path());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.command(arguments))
    }

    /// Supervises `program` with these flags, in the background.
    pub(crate) fn start(&self, flags: &[&str], program: &[&str]) -> GuardedChild {
        let arguments: Vec<_> = ["start", "--set", "supervisor.admin_listen=127.0.0.1:0"]
            .into_iter()
            .chain(flags.iter().copied())
            .chain(program.first().map(|_| "--"))
            .chain(program.iter().copied())
            .collect();
        GuardedChild::spawn(self.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null())).unwrap()
    }
}

impl Ended {
    pub(crate) fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        Self {
            code: status.code().expect("it ends by itself"),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in\n{}", self.stdout))
    }
}
