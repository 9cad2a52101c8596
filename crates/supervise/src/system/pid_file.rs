//! The pid file: who the supervisor is, for others to read; in place as long as it lives and never somebody else's.
//!
//! The file itself is locked. A file that nobody holds was left behind, whatever process has its number by now; one that is
//! held belongs to a living supervisor. Only the holder of its lock replaces or removes a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::lock::LockedFile;

/// A file with this process's id; removed when this value is dropped, unless another has taken its place.
#[derive(Debug, Serialize, Deserialize)]
pub struct PidFile {
    path: PathBuf,
    held: LockedFile,
}

impl PidFile {
    /// Puts the file at `path`, complete or not at all.
    ///
    /// A living supervisor's is [`Error::AlreadyRunning`], a place where it cannot be put [`Error::CannotCreate`].
    pub fn create(path: &Path) -> Result<Self, Error> {
        let draft = Draft::beside(path);
        let held = draft.write().map_err(|source| Error::CannotCreate { path: path.to_owned(), source })?;
        // Another supervisor may put its file there, or take it away, between any two steps.
        while !draft.settle(path)? {}
        Ok(Self { path: path.to_owned(), held: LockedFile(held) })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if is_at(&self.held.0, &self.path).unwrap_or(false) {
            // Whoever took the file away has done our work.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The name under which the file is made, gone when this value is dropped.
struct Draft(PathBuf);

impl Draft {
    fn beside(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        Self(name.into())
    }

    /// The file as it will be, locked before anybody else can see it.
    fn write(&self) -> io::Result<Flock<File>> {
        // Left behind by a process that had our number and died at this very place.
        let _ = fs::remove_file(&self.0);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&self.0)?;
        let mut held = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        held.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        Ok(held)
    }

    /// Gives the draft its final name; false when somebody else came between and it has to be tried again.
    fn settle(&self, path: &Path) -> Result<bool, Error> {
        let cannot_create = |source: io::Error| Error::CannotCreate { path: path.to_owned(), source };
        match OpenOptions::new().read(true).write(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path) {
            Ok(file) => match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(stale) if is_at(&stale, path).map_err(cannot_create)? => {
                    fs::rename(&self.0, path).map_err(cannot_create)?;
                    Ok(true)
                }
                Ok(_replaced_meanwhile) => Ok(false),
                Err((file, Errno::EWOULDBLOCK)) => {
                    Err(Error::AlreadyRunning { path: path.to_owned(), pid: read_pid(file) })
                }
                Err((_, errno)) => Err(cannot_create(errno.into())),
            },
            // A link, unlike a rename, fails when a file has appeared there.
            Err(error) if error.kind() == ErrorKind::NotFound => match fs::hard_link(&self.0, path) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(cannot_create(error)),
            },
            Err(error) => Err(cannot_create(error)),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // A rename has taken the name away already.
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether the open file is the one that `path` names.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match fs::symlink_metadata(path) {
        Ok(named) => Ok(identity(named) == identity(file.metadata()?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn read_pid(mut file: File) -> Option<i32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Place {
        directory: tempfile::TempDir,
        path: PathBuf,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("pid");
            Self { directory, path }
        }

        fn text(&self) -> String {
            fs::read_to_string(&self.path).unwrap()
        }

        fn files(&self) -> usize {
            fs::read_dir(self.directory.path()).unwrap().count()
        }
    }

    fn own_line() -> String {
        format!("{}\n", std::process::id())
    }

    #[test]
    fn the_file_is_there_as_long_as_its_owner_and_nothing_else_is_left() {
        let place = Place::new();
        let file = PidFile::create(&place.path).unwrap();
        assert_eq!((place.text(), place.files()), (own_line(), 1));
        drop(file);
        assert_eq!(place.files(), 0);
    }

    #[test]
    fn a_second_owner_is_told_who_the_first_is_and_changes_nothing() {
        let place = Place::new();
        let _first = PidFile::create(&place.path).unwrap();
        let refused = PidFile::create(&place.path).unwrap_err();
        assert!(matches!(refused, Error::AlreadyRunning { pid: Some(pid), .. } if pid == std::process::id() as i32));
        assert_eq!(refused.exit_code(), 75);
        assert_eq!((place.text(), place.files()), (own_line(), 1));
    }

    #[test]
    fn a_file_left_behind_is_replaced_even_when_its_number_belongs_to_a_living_process() {
        for left_behind in ["999999999\n", "1\n", "", "no number"] {
            let place = Place::new();
            fs::write(&place.path, left_behind).unwrap();
            let _file = PidFile::create(&place.path).unwrap();
            assert_eq!((place.text(), place.files()), (own_line(), 1), "{left_behind:?}");
        }
    }

    #[test]
    fn a_file_that_took_its_place_is_left_alone_at_the_end() {
        let place = Place::new();
        let file = PidFile::create(&place.path).unwrap();
        fs::remove_file(&place.path).unwrap();
        fs::write(&place.path, "somebody else's\n").unwrap();
        drop(file);
        assert_eq!(place.text(), "somebody else's\n");
    }

    #[test]
    fn a_place_where_no_file_can_be_put_is_named_and_stays_as_it_was() {
        let place = Place::new();
        let missing = place.directory.path().join("none/pid");
        symlink("/etc/passwd", place.directory.path().join("link")).unwrap();
        for path in [missing, place.directory.path().to_owned(), place.directory.path().join("link")] {
            let refused = PidFile::create(&path).unwrap_err();
            assert!(matches!(&refused, Error::CannotCreate { path: named, .. } if *named == path), "{refused}");
            assert_eq!(refused.exit_code(), 73);
        }
        assert_eq!(place.files(), 1, "only the link");
    }
}
