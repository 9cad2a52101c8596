//! What a key can change, in words.

use supervise::control::{Request, Scale};

/// Something that is done only after somebody said yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Replace all workers by the next generation.
    Reload,
    /// Run another number of workers.
    Scale {
        /// How many there are to be now.
        from: u32,
        /// How many there will be.
        to: u32,
    },
    /// Replace the worker in one slot.
    Restart(u32),
}

impl Change {
    pub(crate) fn question(self) -> String {
        match self {
            Self::Reload => "Replace all workers by the next generation?".to_owned(),
            Self::Scale { from, to } => format!("Run {to} workers in the place of {from}?"),
            Self::Restart(id) => format!("Replace worker w{id}, its successor first?"),
        }
    }

    /// Of the dialog.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Scale { .. } => "scale",
            Self::Restart(_) => "restart",
        }
    }

    /// As the subject of a sentence.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Reload => "reload".to_owned(),
            Self::Scale { to, .. } => format!("scale {to}"),
            Self::Restart(id) => format!("restart w{id}"),
        }
    }

    pub(crate) fn request(self) -> Request {
        match self {
            Self::Reload => Request::Reload { binary: None },
            Self::Scale { to, .. } => Request::Scale(Scale::To(to)),
            Self::Restart(id) => Request::Restart { id: Some(id), hard: false },
        }
    }
}
