//! Settings for the worker's own verbs, run by the command line before or beside a fleet.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use crate::child::{SETTINGS_VARIABLE, sealed_settings};

/// Lets `command` inherit `settings` the way a worker does, in `BELLWETHER_SETTINGS_FD`.
///
/// The descriptor must live until the command has been spawned. Until it is dropped every other child of this
/// process inherits it too, so call this before the supervisor runs and drop it at once.
pub fn hand_settings(command: &mut Command, settings: &[u8]) -> io::Result<OwnedFd> {
    let sealed = sealed_settings(settings)?;
    nix::fcntl::fcntl(&sealed, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    command.env(SETTINGS_VARIABLE, sealed.as_raw_fd().to_string());
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_the_settings_it_was_handed() {
        let mut command = Command::new("sh");
        command.args(["-c", "cat /proc/self/fd/$BELLWETHER_SETTINGS_FD"]);
        let settings = hand_settings(&mut command, b"{\"a\":1}").unwrap();
        let output = command.output().unwrap();
        drop(settings);
        assert_eq!(output.stdout, b"{\"a\":1}");
    }
}
