//! From arguments to settings.

use std::path::{Path, PathBuf};

use config::{Assignment, Loaded, Problems, Settings, Sources};

use crate::arguments::{Global, Run, name_of};
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// The sources of a command that takes the global flags only.
pub(crate) fn sources(global: &Global) -> Sources {
    let mut sources = Sources::of_this_process(global.config.clone());
    let flags = &mut sources.flags;
    if global.quiet {
        flags.push(Assignment::new("log.level", "warn", "--quiet"));
    }
    if global.verbose {
        flags.push(Assignment::new("log.level", "debug", "--verbose"));
    }
    if let Some(directory) = &global.state_dir {
        flags.push(Assignment::new("supervisor.state_dir", directory.to_string_lossy(), "--state-dir"));
    }
    flags.extend(global.set.iter().cloned());
    sources
}

/// The sources of a command that runs workers.
pub(crate) fn running_sources(global: &Global, run: &Run) -> Sources {
    let mut sources = sources(global);
    let listen: Vec<_> = run.listen.iter().map(ToString::to_string).collect();
    let log_format = run.log_format.as_ref().map(name_of);
    let given = [
        ("supervisor.workers", "--workers", run.workers.map(|workers| workers.to_string())),
        ("supervisor.listen", "--listen", (!listen.is_empty()).then(|| listen.join(","))),
        ("supervisor.admin_listen", "--admin-listen", run.admin_listen.clone()),
        ("supervisor.user", "--user", run.user.clone()),
        ("log.format", "--log-format", log_format),
    ];
    let given = given.into_iter().filter_map(|(key, by, value)| Some(Assignment::new(key, value?, by)));
    sources.flags.extend(given);
    sources
}

/// Loads settings and passes on their warnings.
pub(crate) fn load(sources: &Sources, output: &Output) -> Result<Loaded, Problems> {
    let loaded = config::load(sources)?;
    for warning in &loaded.warnings {
        output.warn(warning);
    }
    Ok(loaded)
}

/// The control socket: where `--socket` says, else in the runtime directory of the service or of the user, else in the
/// state directory.
pub(crate) fn control_socket(global: &Global, settings: &Settings) -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = &global.socket {
        return path.clone();
    }
    let directory =
        variable("RUNTIME_DIRECTORY").or_else(|| variable("XDG_RUNTIME_DIR").map(|user| user.join("bellwether")));
    directory.as_deref().unwrap_or(&settings.supervisor.state_dir).join("supervisor.sock")
}

/// Where the supervisor's log files lie.
pub(crate) fn log_directory(settings: &Settings) -> PathBuf {
    settings.supervisor.state_dir.join("logs")
}

/// Creates a directory that only its owner may enter, unless it exists.
pub(crate) fn create_private_directory(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|error| Failure::new(Exit::CannotCreate, format!("cannot create {}: {error}", path.display())))
}
