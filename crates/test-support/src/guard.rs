//! A child process that cannot outlive the test, however the test process ends.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// What the watcher runs. It waits for the end of its input, which comes when the test process is gone, then ends the child's
/// process group and removes the child's directory. `$1` = process group, `$2` = signal, `$3` = directory or empty.
const WATCHER: &str = r#"
cat >/dev/null
kill -s "$2" -- "-$1" 2>/dev/null
tries=0
while kill -s 0 -- "-$1" 2>/dev/null && [ "$tries" -lt 50 ]; do tries=$((tries + 1)); sleep 0.1; done
kill -s KILL -- "-$1" 2>/dev/null
[ -z "$3" ] || rm -rf -- "$3"
"#;

/// A child in a process group of its own which is killed when this value is dropped, and also when the test process dies
/// without dropping anything (statics, `kill -9`, an abort): a small shell holds the read end of a pipe whose write end lives
/// here, and kills the group when the pipe ends.
#[derive(Debug)]
pub struct GuardedChild {
    child: Child,
    watcher: Child,
    last_signal: Signal,
}

impl GuardedChild {
    /// Starts `command`; it ends by SIGKILL.
    ///
    /// # Errors
    /// Those of [`Command::spawn`].
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Self::spawn_with(command, Signal::SIGKILL, None)
    }

    /// Starts `command`, which is to be ended by `last_signal`; `directory` is removed should nobody live to do it.
    pub(crate) fn spawn_with(command: &mut Command, last_signal: Signal, directory: Option<&Path>) -> io::Result<Self> {
        let mut child = command.process_group(0).spawn()?;
        let name = last_signal.as_str().trim_start_matches("SIG");
        let watcher = Command::new("sh")
            .args(["-c", WATCHER, "watcher", &child.id().to_string(), name])
            .arg(directory.unwrap_or(Path::new("")))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match watcher {
            Ok(watcher) => Ok(Self { child, watcher, last_signal }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// The child's process id, which is its process group's as well.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal to the child alone; nothing happens if it is already reaped.
    pub fn signal(&mut self, signal: Signal) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let sent = kill(pid(&self.child), signal);
            assert!(
                matches!(sent, Ok(()) | Err(Errno::ESRCH)),
                "cannot send {signal} to {}: {sent:?}",
                self.child.id()
            );
        }
    }

    /// The exit status, once there is one.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours and is reaped only through this handle")
    }

    /// Waits for the exit; `None` when the child still runs after `deadline`.
    pub fn wait_within(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            let status = self.try_wait();
            if status.is_some() || Instant::now() >= end {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the whole process group with SIGKILL and reaps the child.
    pub fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    fn end(&mut self, signal: Signal) {
        if self.try_wait().is_some() {
            return;
        }
        // A stopped process takes no signal but SIGKILL until it is continued.
        let _ = killpg(pid(&self.child), signal);
        let _ = killpg(pid(&self.child), Signal::SIGCONT);
        if self.wait_within(Duration::from_secs(5)).is_none() {
            let _ = killpg(pid(&self.child), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

impl Drop for GuardedChild {
    fn drop(&mut self) {
        // The watcher goes first: a moment later the child's number may belong to a stranger.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
        self.end(self.last_signal);
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids fit into i32"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eventually, process};

    #[test]
    fn a_dropped_child_is_gone_even_when_it_was_stopped() {
        let mut child = GuardedChild::spawn(Command::new("sleep").arg("1000")).unwrap();
        let pid = child.pid();
        child.signal(Signal::SIGSTOP);
        eventually(Duration::from_secs(5), || process::state(pid) == Some('T'));
        drop(child);
        assert!(!process::is_alive(pid));
    }

    #[test]
    fn a_child_dies_with_the_process_that_started_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut child =
            GuardedChild::spawn_with(Command::new("sleep").arg("1000"), Signal::SIGTERM, Some(directory.path()))
                .unwrap();
        // What the kernel does to the pipe when the test process ends.
        drop(child.watcher.stdin.take());
        assert!(child.wait_within(Duration::from_secs(5)).is_some());
        eventually(Duration::from_secs(5), || !directory.path().exists());
    }
}
