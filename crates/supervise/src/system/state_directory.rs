//! The state directory: the supervisor's own, and within it what belongs to workers that run as another user.
//!
//! Whoever may write to a directory may put another file in the place of any in it. So workers of another user get
//! directories of their own in it, and may pass through the state directory itself without changing it.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::unistd::Uid;

use crate::Error;
use crate::child::Identity;

/// A directory with everything one supervisor keeps.
#[derive(Debug)]
pub struct StateDirectory {
    /// The workers' user, when it is another than this process's.
    guest: Option<Guest>,
}

#[derive(Debug)]
struct Guest {
    name: String,
    identity: Identity,
}

impl StateDirectory {
    /// Creates the directory for its owner alone, unless it exists, and lets `user` pass through it.
    ///
    /// Only root has workers of another user; for anybody else `user` makes no difference. A directory that `user` could
    /// change, or that lies in one where `user` could put another in its place, is [`Error::Changeable`], one that `user`
    /// cannot get to [`Error::OutOfReach`].
    pub fn create(path: &Path, user: Option<&str>) -> Result<Self, Error> {
        let cannot_create = |source| Error::CannotCreate { path: path.to_owned(), source };
        let guest = user.filter(|_| Uid::effective().is_root()).map(Guest::new).transpose()?;
        let guest = guest.filter(|guest| guest.identity.uid != 0);
        if let Some(guest) = &guest {
            // As it is written it may lead through a link that somebody could turn elsewhere.
            guest.require_unchangeable(&std::path::absolute(path).map_err(cannot_create)?)?;
        }
        create_private(path).map_err(cannot_create)?;
        if let Some(guest) = &guest {
            let path = path.canonicalize().map_err(cannot_create)?;
            guest.require_unchangeable(&path)?;
            guest.let_through(&path)?;
        }
        Ok(Self { guest })
    }

    /// Creates the directory `path`, which lies in this one, unless it exists, for the workers' user alone.
    pub fn create_for_workers(&self, path: &Path) -> Result<(), Error> {
        let given = create_private(path).and_then(|()| {
            let Some(Guest { identity, .. }) = &self.guest else { return Ok(()) };
            chown(path, Some(identity.uid), Some(identity.gid))
        });
        given.map_err(|source| Error::CannotCreate { path: path.to_owned(), source })
    }
}

impl Guest {
    fn new(name: &str) -> Result<Self, Error> {
        Ok(Self { name: name.to_owned(), identity: Identity::of(name)? })
    }

    /// Neither `path` nor a directory on the way to it may be the user's to change. Where the way leads through a directory that is
    /// everybody's, such as `/tmp`, its sticky bit keeps what is root's in its place.
    fn require_unchangeable(&self, path: &Path) -> Result<(), Error> {
        let is_owner = |metadata: &Metadata| metadata.uid() == self.identity.uid;
        let may_change = |metadata: &Metadata| is_owner(metadata) || self.may(WRITE, metadata);
        let may_rename =
            |metadata: &Metadata| may_change(metadata) && (is_owner(metadata) || metadata.mode() & STICKY == 0);
        let own = fs::metadata(path).is_ok_and(|metadata| may_change(&metadata)).then_some(path);
        let on_the_way = path.ancestors().skip(1);
        let mut on_the_way = on_the_way.filter(|ancestor| fs::metadata(ancestor).is_ok_and(|found| may_rename(&found)));
        match own.or_else(|| on_the_way.next()) {
            Some(changeable) => Err(Error::Changeable { path: changeable.to_owned(), user: self.name.clone() }),
            None => Ok(()),
        }
    }

    fn let_through(&self, path: &Path) -> Result<(), Error> {
        let cannot_use = |source| Error::CannotCreate { path: path.to_owned(), source };
        let metadata = fs::metadata(path).map_err(cannot_use)?;
        if !self.may(PASS, &metadata) {
            let mode = metadata.mode() & 0o7777 | PASS << self.class(&metadata);
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(cannot_use)?;
        }
        let is_closed = |ancestor: &&Path| fs::metadata(ancestor).is_ok_and(|metadata| !self.may(PASS, &metadata));
        match path.ancestors().skip(1).find(is_closed) {
            Some(closed) => {
                Err(Error::OutOfReach { path: path.to_owned(), closed: closed.to_owned(), user: self.name.clone() })
            }
            None => Ok(()),
        }
    }

    /// Whether the user has `right` to what `metadata` describes, as its mode says.
    fn may(&self, right: u32, metadata: &Metadata) -> bool {
        metadata.mode() >> self.class(metadata) & right != 0
    }

    /// Where in a mode the user's rights begin. Like the kernel, it looks at the first class that fits and no other.
    fn class(&self, metadata: &Metadata) -> u32 {
        let Identity { uid, gid, groups } = &self.identity;
        let is_group = |group: &u32| *group == metadata.gid();
        if metadata.uid() == *uid {
            OWNER
        } else if is_group(gid) || groups.iter().any(is_group) {
            GROUP
        } else {
            OTHERS
        }
    }
}

/// Rights to a directory as one class of a mode has them.
const WRITE: u32 = 0o2;
const PASS: u32 = 0o1;

/// In such a directory only the owner of a file, or of the directory, renames and removes it.
const STICKY: u32 = 0o1000;

/// Where the classes of users begin in a mode.
const OWNER: u32 = 6;
const GROUP: u32 = 3;
const OTHERS: u32 = 0;

fn create_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn owner(path: &Path) -> u32 {
        fs::metadata(path).unwrap().uid()
    }

    /// A directory that everybody can get to; `None` for who cannot give directories away.
    fn reachable_directory() -> Option<tempfile::TempDir> {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Uid::effective().is_root().then_some(directory)
    }

    #[test]
    fn without_a_user_everything_is_the_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/state");
        let state = StateDirectory::create(&path, None).unwrap();
        state.create_for_workers(&path.join("data")).unwrap();
        state.create_for_workers(&path.join("data")).expect("what exists already is as good");
        assert_eq!((mode(&path), mode(&path.join("data"))), (0o700, 0o700));
        assert_eq!(owner(&path.join("data")), Uid::effective().as_raw());
    }

    #[test]
    fn workers_of_another_user_own_their_directory_and_may_only_pass_through_the_state_directory() {
        let Some(directory) = reachable_directory() else { return };
        let path = directory.path().join("state");
        let state = StateDirectory::create(&path, Some("nobody")).unwrap();
        state.create_for_workers(&path.join("data")).unwrap();
        fs::write(path.join("supervisor.lock"), "").unwrap();
        assert_eq!((mode(&path), mode(&path.join("data"))), (0o701, 0o700));

        let script = format!(
            "cd {} || exit 1; echo mine > data/file || exit 2; rm -f supervisor.lock && exit 3; touch other && exit 4; ls && exit 5; exit 0",
            path.display()
        );
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]).stderr(std::process::Stdio::null());
        crate::system::run_as(&mut command, "nobody").unwrap();
        assert_eq!(command.status().unwrap().code(), Some(0));
        assert_eq!(owner(&path.join("data/file")), 65534);
    }

    #[test]
    fn a_state_directory_that_its_guests_could_change_is_refused() {
        let Some(directory) = reachable_directory() else { return };
        let path = directory.path().join("state");
        fs::create_dir(&path).unwrap();
        for (owner, mode) in [(65534, 0o500), (0, 0o777), (0, 0o1777)] {
            chown(&path, Some(owner), None).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let refused = StateDirectory::create(&path, Some("nobody")).unwrap_err();
            assert!(matches!(refused, Error::Changeable { .. }), "{owner} {mode:o}: {refused}");
            assert_eq!(refused.exit_code(), 77);
        }
    }

    #[test]
    fn a_state_directory_in_the_place_of_which_its_guests_could_put_another_is_refused() {
        let Some(directory) = reachable_directory() else { return };
        let (home, elsewhere) = (directory.path().join("home"), directory.path().join("elsewhere"));
        fs::create_dir(&home).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, home.join("link")).unwrap();
        let refused = |path: &str| StateDirectory::create(&home.join(path), Some("nobody")).unwrap_err();
        for (owner, mode) in [(65534, 0o755), (65534, 0o1755), (0, 0o777)] {
            chown(&home, Some(owner), None).unwrap();
            fs::set_permissions(&home, Permissions::from_mode(mode)).unwrap();
            for path in ["state", "a/state", "link", "link/state"] {
                let refused = refused(path);
                let Error::Changeable { path: named, .. } = &refused else { panic!("{owner} {mode:o}: {refused}") };
                assert_eq!(named, &home, "{path}");
                assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "nothing is made where the link leads");
            }
        }
        fs::set_permissions(&home, Permissions::from_mode(0o1777)).unwrap();
        StateDirectory::create(&home.join("state"), Some("nobody")).expect("the sticky bit protects it");
    }

    #[test]
    fn a_state_directory_that_its_guests_cannot_get_to_is_refused_with_the_closed_door() {
        let Some(directory) = reachable_directory() else { return };
        let closed = directory.path().join("closed");
        fs::DirBuilder::new().mode(0o700).create(&closed).unwrap();
        let refused = StateDirectory::create(&closed.join("a/state"), Some("nobody")).unwrap_err();
        let Error::OutOfReach { closed: named, .. } = &refused else { panic!("{refused}") };
        assert_eq!(*named, closed.join("a").canonicalize().unwrap());
        let root = StateDirectory::create(&closed.join("state"), Some("root"));
        assert!(root.is_ok(), "root gets everywhere: {root:?}");
    }

    #[test]
    fn a_user_that_does_not_exist_is_named() {
        let Some(directory) = reachable_directory() else { return };
        let refused = StateDirectory::create(&directory.path().join("state"), Some("nobody-at-all")).unwrap_err();
        assert!(matches!(refused, Error::NoSuchUser { .. }), "{refused}");
    }
}
