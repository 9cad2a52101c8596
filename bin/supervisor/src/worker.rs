//! The worker's executable, and the verbs that it runs for us: whatever needs the database or the token key.

use std::ffi::OsStr;
use std::io::{self, stderr};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use config::Settings;
use supervise::system::{hand_settings, run_as};

use crate::exit::{Exit, Failure};

/// What `worker db status` exits with when migrations are missing.
const BEHIND: i32 = 4;

/// The worker's executable with the settings it is to use.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    executable: PathBuf,
    settings: String,
    user: Option<String>,
}

/// How the database compares with the executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    UpToDate,
    Behind,
}

impl Worker {
    /// `named`, else the executable beside this one.
    pub(crate) fn new(named: Option<&Path>, settings: &Settings) -> Result<Self, Failure> {
        let executable = match named {
            Some(path) => path.to_owned(),
            None => sibling()
                .map_err(|error| Failure::new(Exit::Unavailable, format!("cannot find the worker: {error}")))?,
        };
        Ok(Self { executable, settings: settings.to_json(), user: settings.supervisor.user.clone() })
    }

    pub(crate) fn executable(&self) -> &Path {
        &self.executable
    }

    /// Becomes the worker's verb; returns only when that fails.
    pub(crate) fn exec(&self, arguments: &[&str]) -> Failure {
        match self.command(arguments).and_then(|mut command| Ok((self.hand(&mut command)?, command))) {
            Ok((_handed, mut command)) => self.cannot_run(&command.exec()),
            Err(failure) => failure,
        }
    }

    /// Runs a verb for its effect. What it prints goes to stderr: it is not the result of this command.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = self.command(arguments)?;
        command.stdout(Stdio::from(stderr()));
        ended(self.status(&mut command)?)
    }

    /// Runs a verb for the line it prints.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = self.command(arguments)?;
        command.stderr(Stdio::inherit());
        self.answer(&mut command)
    }

    /// Runs a verb for the line it prints, if there is anything to print.
    pub(crate) fn ask_if_there(&self, arguments: &[&str]) -> Option<String> {
        let mut command = self.command(arguments).ok()?;
        command.stderr(Stdio::null());
        self.answer(&mut command).ok()
    }

    /// Compares the database with the executable.
    pub(crate) fn database(&self) -> Result<Database, Failure> {
        let mut command = self.command(&["db", "status"])?;
        command.stdout(Stdio::null());
        let status = self.status(&mut command)?;
        match status.code() {
            Some(BEHIND) => Ok(Database::Behind),
            _ => ended(status).map(|()| Database::UpToDate),
        }
    }

    fn answer(&self, command: &mut Command) -> Result<String, Failure> {
        let handed = self.hand(command)?;
        let output = command.stdin(Stdio::null()).output().map_err(|error| self.cannot_run(&error))?;
        drop(handed);
        ended(output.status)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn status(&self, command: &mut Command) -> Result<ExitStatus, Failure> {
        let handed = self.hand(command)?;
        let status = command.stdin(Stdio::null()).status().map_err(|error| self.cannot_run(&error));
        drop(handed);
        status
    }

    fn hand(&self, command: &mut Command) -> Result<std::os::fd::OwnedFd, Failure> {
        hand_settings(command, self.settings.as_bytes()).map_err(|error| self.cannot_run(&error))
    }

    /// Runs as the workers' user: the database and the token key are theirs.
    fn command(&self, arguments: &[&str]) -> Result<Command, Failure> {
        let mut command = Command::new(&self.executable);
        command.args(arguments.iter().map(OsStr::new));
        if let Some(user) = &self.user {
            run_as(&mut command, user)?;
        }
        Ok(command)
    }

    fn cannot_run(&self, error: &io::Error) -> Failure {
        let user = self.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
        Failure::new(Exit::Unavailable, format!("cannot run {}{user}: {error}", self.executable.display()))
    }
}

/// A child that fails has said why; a child that was killed has not.
fn ended(status: ExitStatus) -> Result<(), Failure> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::told(u8::try_from(code).unwrap_or(1))),
        (None, signal) => {
            let message = format!("the worker's command was killed by signal {}", signal.unwrap_or_default());
            Err(Failure::new(Exit::Failed, message))
        }
    }
}

fn sibling() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("worker"))
}
