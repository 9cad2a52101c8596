//! From arguments to settings.

use std::path::PathBuf;

use config::{Assignment, DATABASE_FILE, Loaded, Origin, Problems, Settings, Sources};
use supervise::system::StateDirectory;

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
    warn(&loaded, output);
    Ok(loaded)
}

/// Passes on what is allowed and probably not meant.
pub(crate) fn warn(loaded: &Loaded, output: &Output) {
    for warning in &loaded.warnings {
        output.warn(warning);
    }
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

/// Creates the state directory and what workers of another user own in it.
pub(crate) fn prepare_state(loaded: &Loaded) -> Result<StateDirectory, Failure> {
    let wanted = &loaded.settings.supervisor;
    let state = StateDirectory::create(&wanted.state_dir, wanted.user.as_deref())?;
    if wanted.user.is_some() {
        state.create_for_workers(&wanted.workers_dir())?;
        require_moved_database(loaded)?;
    }
    Ok(state)
}

/// A database that workers made when they had no user of their own must not be replaced silently by an empty one.
fn require_moved_database(loaded: &Loaded) -> Result<(), Failure> {
    let wanted = &loaded.settings.supervisor;
    let (before, now) = (wanted.state_dir.join(DATABASE_FILE), wanted.workers_dir().join(DATABASE_FILE));
    if loaded.origin("database.url") != Origin::Default || now.exists() || !before.exists() {
        return Ok(());
    }
    let message = format!(
        "the database {} is not in the directory of {}: move it, the files that begin with its name and token.key to {} and \
         chown them, or name it as database.url",
        before.display(),
        wanted.user.as_deref().unwrap_or_default(),
        wanted.workers_dir().display()
    );
    Err(Failure::new(Exit::Misconfigured, message))
}
