//! `supervisor service`: a unit for systemd.

mod unit;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use config::{ListenAddress, Loaded, Origin};

use self::unit::{RUNTIME_DIRECTORY, STATE_DIRECTORY, Unit};
use crate::arguments::{Global, Service};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings;

/// Below these a unit that protects homes and has its own temporary files finds nothing.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

pub(crate) fn run(global: &Global, service: &Service, output: &Output) -> Result<Exit, Failure> {
    match service {
        Service::Print => print(global, output),
    }
}

fn print(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let loaded = settings::load(&settings::sources(global), output)?;
    let unit = describe(global, &loaded)?;
    for warning in warnings(&unit, &loaded) {
        output.warn(warning);
    }
    output.result(unit.to_string().trim_end());
    Ok(Exit::Done)
}

fn describe(global: &Global, loaded: &Loaded) -> Result<Unit, Failure> {
    let executable = std::env::current_exe()
        .map_err(|error| Failure::new(Exit::Code(70), format!("cannot find this executable: {error}")))?;
    let config = loaded.file.as_deref().map(std::path::absolute).transpose();
    let config = config.map_err(|error| Failure::new(Exit::Failed, error))?;
    let settings = &loaded.settings;
    let tcp = settings.supervisor.listen.iter().filter_map(|address| match address {
        ListenAddress::Tcp(address) => Some(address.port()),
        ListenAddress::Unix(_) => None,
    });
    let ports = tcp.chain([settings.supervisor.admin_listen.port()]);
    Ok(Unit {
        executable,
        config,
        set: global.set.iter().map(|assignment| format!("{}={}", assignment.key, assignment.value)).collect(),
        systemd: installed_systemd(),
        switches_user: settings.supervisor.user.is_some(),
        binds_privileged_port: ports.into_iter().any(|port| (1..1_024).contains(&port)),
        shares_sockets: unix_sockets(loaded).any(|path| path.starts_with(RUNTIME_DIRECTORY)),
        writable: writable(loaded),
        ready_timeout: settings.supervisor.ready_timeout,
        kill_timeout: settings.supervisor.kill_timeout,
        connections: settings.http.max_connections,
    })
}

/// The major version of the system's systemd, if there is one.
fn installed_systemd() -> Option<u32> {
    let asked = Command::new("systemctl").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    version_in(&String::from_utf8_lossy(&asked.ok()?.stdout))
}

/// `252` in `systemd 252 (252.38-1~deb12u1)`.
fn version_in(text: &str) -> Option<u32> {
    let version = text.strip_prefix("systemd ")?.split_whitespace().next()?;
    version.split(['.', '~', '-']).next()?.parse().ok()
}

fn unix_sockets(loaded: &Loaded) -> impl Iterator<Item = &Path> {
    loaded.settings.supervisor.listen.iter().filter_map(|address| match address {
        ListenAddress::Unix(path) => Some(path.as_path()),
        ListenAddress::Tcp(_) => None,
    })
}

/// The directories of what is written to outside of the service's own ones.
fn writable(loaded: &Loaded) -> Vec<PathBuf> {
    let settings = &loaded.settings;
    let is_named = |key: &str| loaded.origin(key) != Origin::Default;
    let database = settings.database.url.file().filter(|_| is_named("database.url"));
    let token_key = Some(settings.auth.token_key_file.clone()).filter(|_| is_named("auth.token_key_file"));
    let files = database.into_iter().chain(token_key).chain(unix_sockets(loaded).map(Path::to_owned));
    let directories = files.filter_map(|file| file.parent().map(Path::to_owned));
    let is_elsewhere = |path: &PathBuf| {
        path.is_absolute() && !path.starts_with(STATE_DIRECTORY) && !path.starts_with(RUNTIME_DIRECTORY)
    };
    let mut directories: Vec<_> = directories.filter(is_elsewhere).collect();
    directories.sort();
    directories.dedup();
    directories
}

/// What the unit cannot do anything about.
fn warnings(unit: &Unit, loaded: &Loaded) -> Vec<String> {
    let mut warnings = Vec::new();
    let files = [Some(&unit.executable), unit.config.as_ref()];
    for path in files.into_iter().flatten().filter(|path| HIDDEN.iter().any(|hidden| path.starts_with(hidden))) {
        warnings.push(format!("the unit hides {} from the service: install it elsewhere", path.display()));
    }
    if let Some(config) = &unit.config
        && !unit.switches_user
        && config.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 == 0)
    {
        let shown = config.display();
        warnings
            .push(format!("the service's own user cannot read {shown}: chmod o+r it, and give secrets as credentials"));
    }
    let state_dir = &loaded.settings.supervisor.state_dir;
    if loaded.origin("supervisor.state_dir") != Origin::Default && state_dir != Path::new(STATE_DIRECTORY) {
        warnings.push(format!("in the service {STATE_DIRECTORY} takes the place of {}", state_dir.display()));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use config::Sources;

    use super::*;

    fn loaded(variables: &[(&str, &str)]) -> Loaded {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        config::load(&Sources { environment, ..Sources::default() }).unwrap()
    }

    #[test]
    fn the_version_of_systemd_is_read_as_it_tells_it() {
        for (text, expected) in [
            ("systemd 252 (252.38-1~deb12u1)\n+PAM", Some(252)),
            ("systemd 257.3", Some(257)),
            ("systemd 258~rc1 (258~rc1-1)", Some(258)),
            ("", None),
        ] {
            assert_eq!(version_in(text), expected, "{text}");
        }
    }

    #[test]
    fn only_what_lies_outside_of_the_services_own_directories_is_named_writable() {
        assert_eq!(writable(&loaded(&[])), Vec::<PathBuf>::new());
        let elsewhere = loaded(&[
            ("DATABASE_URL", "sqlite:///srv/shop/shop.db"),
            ("BELLWETHER__AUTH__TOKEN_KEY_FILE", "/srv/shop/token.key"),
            ("BELLWETHER__SUPERVISOR__LISTEN", "unix:/run/bellwether/http.sock"),
        ]);
        assert_eq!(writable(&elsewhere), [PathBuf::from("/srv/shop")]);
        let inside = loaded(&[("DATABASE_URL", "sqlite:///var/lib/bellwether/shop.db")]);
        assert_eq!(writable(&inside), Vec::<PathBuf>::new());
    }
}
