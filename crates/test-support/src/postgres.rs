//! A PostgreSQL cluster of the test's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use tempfile::TempDir;

use crate::guard::GuardedChild;
use crate::places::{free_port, short_temp_dir, unique_prefix};

/// How long a start may take, on a machine that is busy compiling.
const START: Duration = Duration::from_secs(60);

/// Settings for a cluster that nobody will miss after a power cut.
const SETTINGS: &str = "listen_addresses = '127.0.0.1'\nmax_connections = 200\nshared_buffers = 32MB\nfsync = off\n\
    synchronous_commit = off\nfull_page_writes = off\nautovacuum = off\n";

/// A private cluster without durability, on a port of the loopback address and on a unix socket. As root it runs as an ordinary user,
/// which PostgreSQL insists on. It ends with this value, or with the test process at the latest.
#[derive(Debug)]
pub struct Postgres {
    server: GuardedChild,
    directory: TempDir,
    programs: Programs,
    port: u16,
}

impl Postgres {
    /// The cluster that all tests of this process share; each takes its own [`Postgres::database`].
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Creates and starts a cluster that nobody else uses: for tests that stop it.
    ///
    /// # Panics
    /// When PostgreSQL is not installed, or does not come up.
    pub fn start() -> Self {
        let programs = Programs::find();
        let directory = short_temp_dir("bw-pg-");
        programs.give(directory.path());
        initialise(&programs, directory.path());
        let mut last_error = String::new();
        for _ in 0..5 {
            let port = free_port();
            match launch(&programs, directory.path(), port) {
                Ok(server) => {
                    return Self { server, directory, programs, port };
                }
                Err(error) => last_error = error,
            }
        }
        panic!("{last_error}");
    }

    /// A new, empty database; the answer is its `postgres://` URL. To go through a proxy, replace [`Postgres::address`] in it.
    pub fn database(&self) -> String {
        let name = unique_prefix();
        self.execute("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://postgres@{}/{name}", self.address())
    }

    /// Where it listens on TCP.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Runs SQL as the superuser in the named database; the answer has one line per row and `|` between columns.
    ///
    /// # Panics
    /// When PostgreSQL reports an error.
    pub fn execute(&self, database: &str, sql: &str) -> String {
        let port = self.port.to_string();
        let arguments = ["-h", path(self.directory.path()), "-p", &port, "-U", "postgres", "-d", database, "-XqAt"];
        self.programs.run("psql", &[&arguments[..], &["-v", "ON_ERROR_STOP=1", "-c", sql]].concat())
    }

    /// Process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }
}

/// Makes the cluster's files, as a guarded child: a test process that is killed meanwhile leaves nothing behind.
fn initialise(programs: &Programs, directory: &Path) {
    let log = directory.join("initdb.log");
    let output = || std::fs::File::create(&log).expect("the directory is ours");
    let mut command = programs.command("initdb");
    command
        .args(["-D", path(&directory.join("data")), "-U", "postgres", "--auth=trust"])
        .args(["-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output());
    let mut initdb = GuardedChild::spawn_with(&mut command, Signal::SIGKILL, Some(directory))
        .unwrap_or_else(|error| panic!("cannot run initdb of {}: {error}", programs.directory.display()));
    let exit = initdb.wait_within(START);
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(exit.is_some_and(|status| status.success()), "initdb failed ({exit:?}): {said}");
}

/// Starts the postmaster and waits until it takes connections; the error tells what its log says.
fn launch(programs: &Programs, directory: &Path, port: u16) -> Result<GuardedChild, String> {
    let log = directory.join("postgres.log");
    let output = || std::fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()));
    std::fs::write(directory.join("data/postgresql.auto.conf"), SETTINGS).map_err(|error| error.to_string())?;
    let mut command = programs.command("postgres");
    command
        .args(["-D", path(&directory.join("data")), "-k", path(directory), "-p", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(output()?)
        .stderr(output()?);
    // SIGQUIT is the immediate shutdown: no checkpoint, but every backend and shared memory segment goes.
    let mut server = GuardedChild::spawn_with(&mut command, Signal::SIGQUIT, Some(directory))
        .map_err(|error| format!("cannot start postgres: {error}"))?;
    let end = Instant::now() + START;
    let port = port.to_string();
    loop {
        let mut probe = programs.command("pg_isready");
        probe.args(["-q", "-h", path(directory), "-p", &port]).stdin(Stdio::null());
        if probe.status().is_ok_and(|status| status.success()) {
            return Ok(server);
        }
        let exit = server.try_wait();
        if exit.is_some() || Instant::now() >= end {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("the private PostgreSQL on port {port} did not come up ({exit:?}); its log:\n{said}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// PostgreSQL's programs and the user they run as.
#[derive(Debug)]
struct Programs {
    directory: PathBuf,
    user: Option<User>,
}

impl Programs {
    fn find() -> Self {
        let mut candidates: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
            })
            .collect();
        candidates.sort_by_key(|&(version, _)| std::cmp::Reverse(version));
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let directory = candidates
            .into_iter()
            .map(|(_, directory)| directory)
            .chain(std::env::split_paths(&on_path))
            .find(|directory| directory.join("initdb").exists() && directory.join("postgres").exists())
            .expect("no PostgreSQL to test with; install it: apt-get install postgresql");
        let user = geteuid().is_root().then(|| {
            let known = |name| User::from_name(name).ok().flatten();
            known("postgres")
                .or_else(|| known("nobody"))
                .expect("root needs a user `postgres` or `nobody` to run PostgreSQL as")
        });
        Self { directory, user }
    }

    /// Hands a directory to the user that PostgreSQL runs as.
    fn give(&self, directory: &Path) {
        let Some(user) = &self.user else { return };
        chown(directory, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root may give its directories away");
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(directory, mode).expect("root may change modes");
    }

    fn command(&self, program: &str) -> Command {
        // Debian's psql is a wrapper on the path; the real one lies beside the server.
        let mut command = Command::new(self.directory.join(program));
        // The directory we are in may be closed to the other user.
        command
            .current_dir("/")
            .env_remove("PGHOST")
            .env_remove("PGPORT")
            .env_remove("PGUSER")
            .env_remove("PGDATABASE");
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).stdin(Stdio::null()).output();
        let output =
            output.unwrap_or_else(|error| panic!("cannot run {program} of {}: {error}", self.directory.display()));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?} failed ({}): {errors}", output.status);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_gets_a_database_of_its_own() {
        let postgres = Postgres::shared();
        let names = [postgres.database(), postgres.database()].map(|url| url.rsplit_once('/').unwrap().1.to_owned());
        assert_ne!(names[0], names[1]);
        postgres.execute(&names[0], "CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'ä')");
        assert_eq!(postgres.execute(&names[0], "SELECT a, upper(b) FROM t"), "1|Ä");
        assert_eq!(postgres.execute(&names[1], "SELECT count(*) FROM pg_tables WHERE tablename = 't'"), "0");
    }

    #[test]
    fn nothing_is_left_after_a_drop() {
        let postgres = Postgres::start();
        let (pid, directory) = (postgres.pid(), postgres.directory.path().to_owned());
        drop(postgres);
        assert!(!crate::process::is_alive(pid));
        assert!(!directory.exists());
    }
}
