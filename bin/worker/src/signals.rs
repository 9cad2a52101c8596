//! The worker's signals: TERM drains; INT and HUP are the business of the supervisor, whose terminal they come from.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use edge::{DrainKind, Phase};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

/// The signals that have been taken over and wait to be followed.
pub(crate) struct Signals(UnixStream);

impl Signals {
    /// Takes over the signals: from now on none of them ends the process.
    pub(crate) fn take_over() -> anyhow::Result<Self> {
        for ignored in [SIGINT, SIGHUP] {
            signal_hook::flag::register(ignored, Arc::new(AtomicBool::new(false))).context("cannot ignore a signal")?;
        }
        let (read, write) = UnixStream::pair().context("cannot make the signal pipe")?;
        signal_hook::low_level::pipe::register(SIGTERM, write).context("cannot handle SIGTERM")?;
        read.set_nonblocking(true).context("cannot use the signal pipe")?;
        Ok(Self(read))
    }

    /// Turns every TERM into a stop; one that comes while a reload drains shortens it.
    pub(crate) async fn follow(self, phase: watch::Sender<Phase>) -> anyhow::Result<()> {
        let mut pipe = tokio::net::UnixStream::from_std(self.0).context("cannot watch the signal pipe")?;
        loop {
            pipe.read_u8().await.context("the signal pipe broke")?;
            phase.send_replace(Phase::Drain(DrainKind::Stop));
        }
    }
}
