//! Whether a supervisor runs, and which.

use std::path::Path;

use supervise::control::{Client, ClientError};
use supervise::status::Status;

use super::check::Check;

const RUNNING: &str = "supervisor.running";

/// What the supervisor at `socket` tells about itself, if one runs.
pub(super) fn examine(socket: &Path) -> (Option<Status>, Vec<Check>) {
    match Client::connect(socket).and_then(|mut client| client.status()) {
        Ok(status) => {
            let (pid, version) = (status.supervisor.pid, &status.supervisor.version);
            let running = Check::ok(RUNNING, format!("supervisor {version} runs, pid {pid}"));
            let checks = vec![running, same_version(version)];
            (Some(status), checks)
        }
        Err(error) => (None, vec![not_asked(&error)]),
    }
}

fn same_version(running: &str) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    if running == own {
        return Check::ok("supervisor.version", "what runs is this version");
    }
    Check::warning("supervisor.version", format!("{running} runs, and this is {own}"), "supervisor upgrade")
}

fn not_asked(error: &ClientError) -> Check {
    match error {
        ClientError::NotRunning(_) => {
            Check::note(RUNNING, error, Some("--socket names the one of a service: /run/bellwether/supervisor.sock"))
        }
        ClientError::NotPermitted(_) | ClientError::Closed => {
            Check::warning(RUNNING, error, "run this as the supervisor's user or as root")
        }
        _ => Check::error(RUNNING, error, "look at its log; its workers go on without it"),
    }
}
