//! Locks held for the life of a process: whoever dies leaves nothing behind that keeps the next one out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::O_NOFOLLOW;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;
use crate::handover::descriptor;

const TRY_EVERY: Duration = Duration::from_millis(50);

/// The exclusive right to a state directory or a control socket; given up when it is dropped or the process dies.
#[derive(Debug, Serialize, Deserialize)]
pub struct StateLock {
    _file: LockedFile,
}

/// A file that this process has locked. The descriptor is the lock, so whoever is handed it has the right.
#[derive(Debug)]
pub(crate) struct LockedFile(pub(crate) Flock<File>);

impl Serialize for LockedFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        descriptor::serialize(&*self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for LockedFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file: File = descriptor::deserialize(deserializer)?;
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        locked.map(Self).map_err(|(_, errno)| D::Error::custom(errno))
    }
}

impl StateLock {
    /// Takes the lock file `path`, or says who has it.
    pub fn try_acquire(path: &Path) -> Result<Self, Error> {
        let cannot_create = |source| Error::CannotCreate { path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(O_NOFOLLOW)
            .open(path)
            .map_err(cannot_create)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                leave_pid(&mut file).map_err(cannot_create)?;
                Ok(Self { _file: LockedFile(file) })
            }
            Err((file, Errno::EWOULDBLOCK)) => {
                Err(Error::AlreadyRunning { path: path.to_owned(), pid: read_pid(file) })
            }
            Err((_, errno)) => Err(cannot_create(errno.into())),
        }
    }

    /// Takes the lock file `path`, waiting up to `patience` for the one who has it; `waiting` is told once, with
    /// that one's process id.
    pub fn acquire(path: &Path, patience: Duration, waiting: impl FnOnce(Option<i32>)) -> Result<Self, Error> {
        let deadline = Instant::now() + patience;
        let mut waiting = Some(waiting);
        loop {
            match Self::try_acquire(path) {
                Err(Error::AlreadyRunning { pid, .. }) if Instant::now() < deadline => {
                    if let Some(waiting) = waiting.take() {
                        waiting(pid);
                    }
                    thread::sleep(TRY_EVERY);
                }
                result => return result,
            }
        }
    }
}

/// The lock file beside a control socket.
pub(crate) fn beside(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

fn leave_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

fn read_pid(mut file: File) -> Option<i32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Creates the directory a socket or lock lies in, for its owner alone.
pub(crate) fn create_directory_of(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) else { return Ok(()) };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| Error::CannotCreate { path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = StateLock::try_acquire(&path).unwrap();
        let Err(Error::AlreadyRunning { pid, .. }) = StateLock::try_acquire(&path) else {
            panic!("the lock was given twice");
        };
        assert_eq!(pid, Some(std::process::id() as i32));
        drop(held);
        StateLock::try_acquire(&path).unwrap();
    }

    #[test]
    fn a_patient_one_gets_the_lock_when_it_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = StateLock::try_acquire(&path).unwrap();
        let (told, is_waiting) = mpsc::channel();
        let waiter = thread::spawn({
            let path = path.clone();
            move || StateLock::acquire(&path, Duration::from_secs(10), |pid| told.send(pid).unwrap()).is_ok()
        });
        assert_eq!(is_waiting.recv().unwrap(), Some(std::process::id() as i32));
        drop(held);
        assert!(waiter.join().unwrap());
    }
}
