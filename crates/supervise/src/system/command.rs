//! Settings and user for the worker's own verbs, run by the command line before or beside a fleet.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use nix::unistd::Uid;

use crate::Error;
use crate::child::{Identity, SETTINGS_VARIABLE, sealed_settings, sys};

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

/// Has `command` run as the workers' user, so that the files it makes are theirs.
///
/// Only root can arrange that. Anybody else's command runs as it is: what it may do, their own user decides.
pub fn run_as(command: &mut Command, user: &str) -> Result<(), Error> {
    if Uid::effective().is_root() {
        sys::change_identity_of(command, Identity::of(user)?);
    }
    Ok(())
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

    #[test]
    fn a_command_has_the_user_and_the_groups_of_the_workers_and_reads_its_settings_all_the_same() {
        if !Uid::effective().is_root() {
            return;
        }
        let mut command = Command::new("sh");
        command.args(["-c", "id -un; id -Gn; cat /proc/self/fd/$BELLWETHER_SETTINGS_FD"]);
        let settings = hand_settings(&mut command, b"{}").unwrap();
        run_as(&mut command, "nobody").unwrap();
        let output = command.output().unwrap();
        drop(settings);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "nobody\nnogroup\n{}");
    }

    #[test]
    fn a_user_that_does_not_exist_is_named() {
        if Uid::effective().is_root() {
            let refused = run_as(&mut Command::new("true"), "nobody-at-all").unwrap_err();
            assert_eq!(refused.to_string(), "there is no user nobody-at-all");
        }
    }
}
