//! Members, and their numbers among all of them.

use std::{fmt, str::FromStr};

use crate::host::Host;

/// A worker of a host. One that is being replaced and its successor are the same member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Its supervisor.
    pub host: Host,
    /// The number of its slot.
    pub worker: u32,
}

/// One of all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub index: u32,
    /// How many there are, at least 1.
    pub workers: u32,
}

/// The place of `own` among the `workers` of its host, as its supervisor counts them, and those of other hosts in `known`. Hosts that
/// know one another number everybody alike.
pub fn place(own: Member, workers: u32, known: &[Member]) -> Place {
    let others = known.iter().filter(|member| member.host != own.host);
    let (before, after): (Vec<&Member>, Vec<&Member>) = others.partition(|member| member.host < own.host);
    let (before, after) = (before.len() as u32, after.len() as u32);
    Place { index: before + own.worker, workers: before + workers.max(own.worker + 1) + after }
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.worker)
    }
}

impl FromStr for Member {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, worker) = text.split_once(':').ok_or(())?;
        Ok(Self { host: host.parse()?, worker: worker.parse().map_err(|_| ())? })
    }
}
