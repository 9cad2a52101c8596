//! One supervisor's program takes another's place in the same process: JSON in sealed memory, descriptors by number.
//!
//! The new program is rehearsed first, as a child that reads everything and touches nothing. A supervisor with the same
//! arguments finds what it is handed in its environment.

pub(crate) mod descriptor;
pub(crate) mod moment;

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::child::{HANDOVER_VARIABLE, REHEARSAL_VARIABLE, sealed_settings, sys};

/// The format of what is handed over. A program that does not know it fails its rehearsal.
const FORMAT: u32 = 1;

/// What a supervisor leaves to the program that takes its place.
#[derive(Debug)]
pub struct Handover {
    text: Vec<u8>,
    is_rehearsal: bool,
}

#[derive(Serialize)]
struct Sent<'a, T> {
    format: u32,
    state: &'a T,
}

#[derive(Deserialize)]
struct Received<T> {
    format: u32,
    state: T,
}

/// State in memory that can be handed over, with the descriptors that belong to it.
pub(crate) struct Prepared {
    pub(crate) memory: OwnedFd,
    descriptors: Vec<RawFd>,
}

impl Handover {
    /// What this process was handed by the program it took the place of, or is to rehearse; `None` for a fresh start.
    pub fn from_environment() -> Result<Option<Self>, Error> {
        let failed = |source| Error::System { what: "read what the supervisor before this one left", source };
        let Some(number) = std::env::var_os(HANDOVER_VARIABLE) else { return Ok(None) };
        let number = number.to_str().and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let mut memory = File::from(sys::own_inherited(number).map_err(failed)?);
        let mut text = Vec::new();
        memory.rewind().and_then(|()| memory.read_to_end(&mut text)).map_err(failed)?;
        let is_rehearsal = std::env::var_os(REHEARSAL_VARIABLE).is_some();
        Ok(Some(Self { text, is_rehearsal }))
    }

    /// Whether this process only shows that it could go on: nothing it does may be seen by anybody.
    pub fn is_rehearsal(&self) -> bool {
        self.is_rehearsal
    }

    pub(crate) fn read<T: for<'de> Deserialize<'de>>(self) -> Result<T, Error> {
        if self.is_rehearsal {
            descriptor::rehearse();
        }
        let failed = |error: String| Error::Handover { reason: error };
        let received: Received<T> = serde_json::from_slice(&self.text).map_err(|error| failed(error.to_string()))?;
        if received.format == FORMAT {
            Ok(received.state)
        } else {
            Err(failed(format!("its format is {}, and this program knows {FORMAT}", received.format)))
        }
    }
}

impl Prepared {
    /// Writes `state` down.
    pub(crate) fn of<T: Serialize>(state: &T) -> io::Result<Self> {
        let (text, descriptors) = descriptor::collect(|| serde_json::to_vec(&Sent { format: FORMAT, state }));
        Ok(Self { memory: sealed_settings(&text?)?, descriptors })
    }

    /// Becomes the program at `path`, with the arguments of this one. Returns only if that fails, with nothing changed.
    ///
    /// All signals are blocked from here on; the new program unblocks them once it handles them. Those that `noticed` tells of
    /// then were noticed and not handled yet: they are sent once more, so that they wait for the new program, too.
    pub(crate) fn become_program(self, path: &Path, noticed: impl FnOnce() -> Vec<Signal>) -> io::Error {
        let number = self.memory.as_raw_fd();
        let send_again = || {
            for signal in noticed() {
                // This process exists, and may send itself what it likes.
                let _ = kill(getpid(), signal);
            }
        };
        let attempt = || {
            let program = CString::new(path.as_os_str().as_bytes())?;
            let arguments = std::env::args_os().map(|argument| CString::new(argument.into_vec()));
            let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
            let environment = environment(number).collect::<Result<Vec<_>, _>>()?;
            let kept: Vec<RawFd> = self.descriptors.iter().copied().chain([number]).collect();
            Err(sys::replace_program(&program, &arguments, &environment, &kept, send_again))
        };
        let Err(error) = attempt() as io::Result<std::convert::Infallible>;
        error
    }
}

fn environment(number: RawFd) -> impl Iterator<Item = Result<CString, std::ffi::NulError>> {
    let own = |name: &OsStr| name == HANDOVER_VARIABLE || name == REHEARSAL_VARIABLE;
    let rest = std::env::vars_os().filter(move |(name, _)| !own(name));
    let handover = (OsString::from(HANDOVER_VARIABLE), OsString::from(number.to_string()));
    rest.chain([handover]).map(|(mut entry, value)| {
        entry.push("=");
        entry.push(value);
        CString::new(entry.into_vec())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_from_the_future_is_refused() {
        let handover = |text: &str| Handover { text: text.as_bytes().to_vec(), is_rehearsal: false };
        assert_eq!(handover(r#"{"format":1,"state":7}"#).read::<u32>().unwrap(), 7);
        let error = handover(r#"{"format":2,"state":7}"#).read::<u32>().unwrap_err();
        assert!(error.to_string().contains("its format is 2"), "{error}");
    }

    #[test]
    fn what_is_left_is_found_by_whoever_has_the_descriptor() {
        let prepared = Prepared::of(&("fleet", 3)).unwrap();
        let mut memory = File::from(prepared.memory);
        let mut text = String::new();
        memory.rewind().and_then(|()| memory.read_to_string(&mut text)).unwrap();
        assert_eq!(text, r#"{"format":1,"state":["fleet",3]}"#);
    }
}
