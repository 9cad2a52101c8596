//! The private Redis of `up`: found in `PATH`, reachable only through a socket in a directory of its own.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use config::{Loaded, Origin};
use supervise::AuxiliaryProcess;
use supervise::status::Status;

use crate::exit::{Exit, Failure};

/// What it is called in `status` and before its log lines.
pub(crate) const NAME: &str = "redis";

const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// Where the private Redis listens.
pub(crate) fn socket(state_dir: &Path) -> PathBuf {
    directory(state_dir).join("redis.sock")
}

/// Its URL, in which some characters have a meaning of their own.
pub(crate) fn url(state_dir: &Path) -> String {
    let path = socket(state_dir).display().to_string();
    let path = path.replace('%', "%25").replace('?', "%3F").replace('#', "%23").replace('@', "%40");
    format!("redis+unix://{path}")
}

/// Where it and its socket live.
pub(crate) fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("redis")
}

/// The URL of the Redis that a running `up` has brought along, unless another one is named.
pub(crate) fn of_running(loaded: &Loaded, running: &Status) -> Option<String> {
    let state_dir = std::path::absolute(&loaded.settings.supervisor.state_dir).ok()?;
    let is_running = running.processes.iter().any(|process| process.name == NAME);
    let is_meant = loaded.origin("redis.url") == Origin::Default && socket(&state_dir).exists();
    (is_running && is_meant).then(|| url(&state_dir))
}

/// The process to supervise; an error with the line to type when there is no Redis on this machine.
pub(crate) fn private(state_dir: &Path) -> Result<AuxiliaryProcess, Failure> {
    let program = find(env::var_os("PATH").unwrap_or_default()).ok_or_else(missing)?;
    let (directory, socket) = (directory(state_dir).into_os_string(), socket(state_dir).into_os_string());
    let arguments: [(&str, OsString); 11] = [
        ("--port", "0".into()),
        ("--unixsocket", socket),
        ("--unixsocketperm", "700".into()),
        ("--supervised", "systemd".into()),
        ("--daemonize", "no".into()),
        ("--dir", directory),
        ("--save", "".into()),
        ("--appendonly", "no".into()),
        ("--maxmemory-policy", "noeviction".into()),
        ("--logfile", "".into()),
        ("--loglevel", "warning".into()),
    ];
    Ok(AuxiliaryProcess {
        name: NAME.to_owned(),
        program: program.into_os_string(),
        args: arguments.into_iter().flat_map(|(name, value)| [name.into(), value]).collect(),
        env: Vec::new(),
        notifies: true,
    })
}

fn find(path: OsString) -> Option<PathBuf> {
    let directories: Vec<_> = env::split_paths(&path).collect();
    let candidates =
        PROGRAMS.iter().flat_map(|program| directories.iter().map(move |directory| directory.join(program)));
    let is_executable = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    candidates.into_iter().find(is_executable)
}

fn missing() -> Failure {
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let message = format!(
        "neither redis-server nor valkey-server is in PATH. Install it:\n  {}\nor name a running one: REDIS_URL=redis://HOST:PORT",
        install_line(&system)
    );
    Failure::new(Exit::Unavailable, message)
}

/// What installs Redis on the system that `os_release` (the text of /etc/os-release) describes.
fn install_line(os_release: &str) -> &'static str {
    let value = |name: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let systems = format!("{} {}", value("ID"), value("ID_LIKE"));
    let line_of = |system: &str| match system {
        "debian" | "ubuntu" => Some("sudo apt-get install redis-server"),
        "fedora" => Some("sudo dnf install valkey"),
        "rhel" | "centos" => Some("sudo dnf install redis"),
        "arch" => Some("sudo pacman -S valkey"),
        "alpine" => Some("sudo apk add redis"),
        "suse" | "opensuse" => Some("sudo zypper install redis"),
        _ => None,
    };
    let fallback =
        if cfg!(target_os = "macos") { "brew install redis" } else { "your package manager's redis or valkey" };
    systems.split_whitespace().find_map(line_of).unwrap_or(fallback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_install_line_is_the_systems_own() {
        let cases = [
            ("ID=debian\n", "sudo apt-get install redis-server"),
            ("NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "sudo apt-get install redis-server"),
            ("ID=fedora\n", "sudo dnf install valkey"),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "sudo dnf install redis"),
            ("ID=manjaro\nID_LIKE=arch\n", "sudo pacman -S valkey"),
            ("ID=alpine\n", "sudo apk add redis"),
            ("", "your package manager's redis or valkey"),
        ];
        for (os_release, expected) in cases {
            assert_eq!(install_line(os_release), expected, "{os_release}");
        }
    }

    #[test]
    fn redis_is_found_before_valkey_and_only_when_it_can_be_executed() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = env::join_paths([one.path(), other.path()]).unwrap();
        assert_eq!(find(path.clone()), None);
        let program = |directory: &tempfile::TempDir, name: &str, mode| {
            let file = directory.path().join(name);
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            file
        };
        program(&one, "redis-server", 0o644);
        let valkey = program(&one, "valkey-server", 0o755);
        assert_eq!(find(path.clone()), Some(valkey));
        let redis = program(&other, "redis-server", 0o755);
        assert_eq!(find(path), Some(redis));
    }
}
