//! Whether the state directory belongs to us alone, can be written to, and has room.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::check::Check;

const DIRECTORY: &str = "state.directory";
const MIB: u64 = 1 << 20;

/// Below this a database that grows stops soon, and below the other one it has stopped already.
const LITTLE_SPACE: u64 = 512 * MIB;
const NO_SPACE: u64 = 32 * MIB;

pub(super) fn examine(path: &Path) -> Vec<Check> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let mut checks = vec![access(path, &metadata)];
            checks.extend(supervise::system::free_bytes(path).ok().map(space));
            checks
        }
        Ok(_) => vec![Check::error(DIRECTORY, format!("{shown} is not a directory"), "move it away")],
        Err(error) if error.kind() == ErrorKind::NotFound => {
            vec![Check::note(DIRECTORY, format!("{shown} does not exist yet; the first start creates it"), None)]
        }
        Err(error) => vec![Check::error(DIRECTORY, format!("{shown}: {error}"), "choose another supervisor.state_dir")],
    }
}

fn access(path: &Path, metadata: &Metadata) -> Check {
    let shown = path.display();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
    if own_user().is_ok_and(|user| user != owner && user != 0) {
        let summary = format!("{shown} belongs to another user ({owner})");
        return Check::error(
            DIRECTORY,
            summary,
            "run this as the service's user, or choose another supervisor.state_dir",
        );
    }
    if let Err(error) = try_to_write(path) {
        return Check::error(DIRECTORY, format!("cannot write to {shown}: {error}"), format!("chmod u+rwx {shown}"));
    }
    if mode & 0o077 != 0 {
        let summary = format!("{shown} holds secrets, and other users may look into it (mode {mode:o})");
        return Check::warning(DIRECTORY, summary, format!("chmod 700 {shown}"));
    }
    Check::ok(DIRECTORY, format!("{shown} is private and can be written to"))
}

/// The owner of a process's directory is the user it acts as.
fn own_user() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

/// The modes alone do not tell: the file system may be read-only.
fn try_to_write(directory: &Path) -> io::Result<()> {
    let probe = directory.join(format!(".doctor-{}", std::process::id()));
    File::create_new(&probe)?;
    fs::remove_file(probe)
}

fn space(free: u64) -> Check {
    const SPACE: &str = "state.space";
    let (summary, fix) = (format!("{} MiB are free for the state directory", free / MIB), "make room on its disk");
    match free {
        ..NO_SPACE => Check::error(SPACE, summary, fix),
        NO_SPACE..LITTLE_SPACE => Check::warning(SPACE, summary, fix),
        _ => Check::ok(SPACE, summary),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::check::Severity;
    use super::*;

    #[test]
    fn only_a_private_directory_is_well() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        assert_eq!(examine(&path)[0].severity, Severity::Note);
        fs::create_dir(&path).unwrap();
        for (mode, expected) in [(0o700, Severity::Ok), (0o750, Severity::Warning), (0o701, Severity::Warning)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(examine(&path)[0].severity, expected, "{mode:o}");
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "looking leaves something behind");
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(examine(&file)[0].severity, Severity::Error);
    }

    #[test]
    fn little_space_is_a_warning_and_none_an_error() {
        for (mebibytes, expected) in [(31, Severity::Error), (511, Severity::Warning), (512, Severity::Ok)] {
            assert_eq!(space(mebibytes * MIB).severity, expected, "{mebibytes}");
        }
    }
}
