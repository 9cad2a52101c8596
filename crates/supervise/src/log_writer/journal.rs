//! Whether systemd's journal reads what this process writes.

use std::io;

use nix::sys::stat::fstat;

/// Whether `JOURNAL_STREAM` names stdout or stderr. The journal keeps and rotates what it gets.
pub(crate) fn is_journal() -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else { return false };
    let streams = [fstat(io::stdout()), fstat(io::stderr())];
    streams.into_iter().flatten().any(|stream| format!("{}:{}", stream.st_dev, stream.st_ino) == journal)
}
