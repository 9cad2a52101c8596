//! Starting a process: what it is given, prepared so that nothing is allocated between fork and exec.

pub(crate) mod sys;

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Gid, Uid, User};
use serde::{Deserialize, Serialize};

use crate::{Error, Program};

/// Where a process finds its settings.
pub(crate) const SETTINGS_VARIABLE: &str = "BELLWETHER_SETTINGS_FD";

/// Where a supervisor finds what the one before it has left.
pub(crate) const HANDOVER_VARIABLE: &str = "BELLWETHER_HANDOVER_FD";

/// Set for a supervisor that only shows that it could go on.
pub(crate) const REHEARSAL_VARIABLE: &str = "BELLWETHER_REHEARSAL";

/// Meant for this process by whoever started it, so its children must not see them.
const NOT_PASSED_ON: [&str; 12] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "FDSTORE",
    "SYSTEMD_EXEC_PID",
    SETTINGS_VARIABLE,
    HANDOVER_VARIABLE,
    REHEARSAL_VARIABLE,
];

/// What to execute, found once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Executable {
    arguments: Vec<CString>,
    image: Image,
}

#[derive(Debug, Serialize, Deserialize)]
enum Image {
    /// The file as it was when it was opened, whatever lies at its path now.
    Pinned(#[serde(with = "crate::handover::descriptor")] OwnedFd),
    /// Scripts need a path: their interpreter cannot read a descriptor that is closed on exec.
    Path(CString),
}

/// The user a process runs as, resolved before the fork because look-ups allocate and may block.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// One process to be started.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) executable: &'a Executable,
    /// Added to this process's environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) identity: Option<&'a Identity>,
    /// Becomes stdout; stdin is empty.
    pub(crate) stdout: BorrowedFd<'a>,
    /// Becomes stderr.
    pub(crate) stderr: BorrowedFd<'a>,
    /// Become the descriptors from 3 on, in this order.
    pub(crate) inherited: Vec<BorrowedFd<'a>>,
}

impl Executable {
    /// Finds and, if it is our own, pins what `program` names.
    pub(crate) fn find(program: &Program) -> Result<Self, Error> {
        match program {
            Program::Own { executable, args } => {
                let cannot_run = |source| Error::Program { path: executable.clone(), source };
                let pinned = pin(executable).map_err(cannot_run)?;
                let arguments = c_arguments(executable.as_os_str(), args).map_err(cannot_run)?;
                Ok(Self { arguments, image: Image::Pinned(pinned) })
            }
            Program::Foreign { program, args } => Self::by_path(program, args),
        }
    }

    /// Finds `program`, in `PATH` unless it is a path.
    pub(crate) fn by_path(program: &OsStr, args: &[OsString]) -> Result<Self, Error> {
        let cannot_run = |source| Error::Program { path: PathBuf::from(program), source };
        let path = search(program).map_err(cannot_run)?;
        let path = c_string(path.as_os_str()).map_err(cannot_run)?;
        let arguments = c_arguments(program, args).map_err(cannot_run)?;
        Ok(Self { arguments, image: Image::Path(path) })
    }
}

impl Executable {
    /// Program and arguments, for people.
    pub(crate) fn command(&self) -> Vec<String> {
        self.arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect()
    }

    /// The file, for people: where it lay when it was opened.
    pub(crate) fn path(&self) -> String {
        let path = match &self.image {
            Image::Pinned(_) => &self.arguments[0],
            Image::Path(path) => path,
        };
        path.to_string_lossy().into_owned()
    }
}

impl Identity {
    /// The user of this name with all their groups.
    pub(crate) fn of(name: &str) -> Result<Self, Error> {
        let no_such_user = || Error::NoSuchUser { name: name.to_owned() };
        let user = User::from_name(name).ok().flatten().ok_or_else(no_such_user)?;
        if !Uid::effective().is_root() {
            return Err(Error::NotPermitted);
        }
        let name = c_string(OsStr::new(name)).map_err(|_| no_such_user())?;
        let groups = nix::unistd::getgrouplist(&name, user.gid)
            .map_err(|errno| Error::System { what: "list the groups of the workers' user", source: errno.into() })?;
        let groups = groups.into_iter().map(Gid::as_raw).collect();
        Ok(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups })
    }
}

impl Launch<'_> {
    /// Starts the process in a group of its own and returns its id.
    pub(crate) fn start(&self) -> io::Result<i32> {
        let nothing = File::open("/dev/null")?;
        let mut descriptors = vec![nothing.as_fd(), self.stdout, self.stderr];
        descriptors.extend(&self.inherited);
        sys::fork_and_exec(sys::Prepared::new(self, &descriptors, self.environment_block()?))
    }

    fn environment_block(&self) -> io::Result<Vec<CString>> {
        let own = |name: &OsStr| self.environment.iter().any(|(candidate, _)| candidate == name);
        env::vars_os()
            .filter(|(name, _)| !own(name) && !NOT_PASSED_ON.iter().any(|variable| name == variable))
            .chain(self.environment.iter().cloned())
            .map(|(name, value)| {
                let mut entry = name.into_vec();
                entry.push(b'=');
                entry.extend(value.into_vec());
                Ok(CString::new(entry)?)
            })
            .collect()
    }
}

/// `settings` in memory that nobody can change any more, open in this process and closed on exec.
pub(crate) fn sealed_settings(settings: &[u8]) -> io::Result<OwnedFd> {
    let mut memory = File::from(memfd_create(c"settings", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    io::Write::write_all(&mut memory, settings)?;
    io::Seek::rewind(&mut memory)?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory.into())
}

fn pin(executable: &Path) -> io::Result<OwnedFd> {
    let file = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_CLOEXEC).open(executable)?;
    require_executable(&file.metadata()?)?;
    Ok(file.into())
}

fn search(program: &OsStr) -> io::Result<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        require_executable(&fs::metadata(program)?)?;
        return std::path::absolute(program);
    }
    let directories = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    env::split_paths(&directories)
        .map(|directory| directory.join(program))
        .find(|path| fs::metadata(path).is_ok_and(|metadata| require_executable(&metadata).is_ok()))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is not in PATH"))
}

fn require_executable(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not an executable file"))
    }
}

fn c_arguments(program: &OsStr, args: &[OsString]) -> io::Result<Vec<CString>> {
    std::iter::once(program).chain(args.iter().map(OsString::as_os_str)).map(c_string).collect()
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}
