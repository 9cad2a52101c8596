//! The channel to the supervisor: orders come in, reports go out.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context as _;
use edge::{DrainKind, Phase, Snapshot, Statistics};
use supervise::frame::{self, Decoder, FromWorker, ToWorker};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the supervisor hears of this worker.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often the loop is timed in between.
const LAG_INTERVAL: Duration = Duration::from_millis(100);

/// The open channel. Frames of several senders go out one after another, each in one piece.
pub(crate) struct Link {
    orders: Mutex<OwnedReadHalf>,
    reports: Mutex<OwnedWriteHalf>,
}

impl Link {
    /// Takes over the inherited descriptor and greets the supervisor.
    pub(crate) async fn open(descriptor: OwnedFd) -> anyhow::Result<Self> {
        let stream = std::os::unix::net::UnixStream::from(descriptor);
        stream.set_nonblocking(true).context("cannot use the supervisor's channel")?;
        let stream = UnixStream::from_std(stream).context("cannot watch the supervisor's channel")?;
        let (orders, mut reports) = stream.into_split();
        reports.write_all(&frame::greeting()).await.context("cannot greet the supervisor")?;
        Ok(Self { orders: Mutex::new(orders), reports: Mutex::new(reports) })
    }

    /// Follows orders until the supervisor goes away.
    pub(crate) async fn obey(&self, phase: watch::Sender<Phase>) -> anyhow::Result<()> {
        let mut orders = self.orders.lock().await;
        let mut decoder = Decoder::new();
        let mut piece = [0; 1024];
        loop {
            let length = orders.read(&mut piece).await.context("the channel broke")?;
            if length == 0 {
                return Ok(());
            }
            decoder.push(&piece[..length]);
            while let Some(order) = decoder.next_message().context("the supervisor is not understood")? {
                if let ToWorker::Drain { kind } = order {
                    drain(&phase, kind);
                }
            }
        }
    }

    /// Reports once a second.
    pub(crate) async fn report(&self, statistics: Statistics) -> anyhow::Result<()> {
        let mut ticks = interval(LAG_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut last_at, mut lag) = (statistics.snapshot(), Instant::now(), Duration::ZERO);
        loop {
            let due = ticks.tick().await;
            let now = Instant::now();
            lag = lag.max(now.saturating_duration_since(due));
            if now - last_at >= REPORT_INTERVAL {
                let current = statistics.snapshot();
                self.say(&FromWorker::Statistics(summary(&last, &current, now - last_at, lag))).await?;
                (last, last_at, lag) = (current, now, Duration::ZERO);
            }
        }
    }

    /// The last thing a worker says. A supervisor that has gone does not need it.
    pub(crate) async fn say_drained(&self, cut: u64) {
        if let Err(error) = self.say(&FromWorker::Drained { cut }).await {
            tracing::debug!(error = format!("{error:#}"), "Supervisor does not hear of the drain");
        }
    }

    async fn say(&self, message: &FromWorker) -> anyhow::Result<()> {
        self.reports.lock().await.write_all(&frame::encode(message)).await.context("the channel broke")
    }
}

/// A stop is not turned back into a reload.
fn drain(phase: &watch::Sender<Phase>, kind: frame::DrainKind) {
    let kind = match kind {
        frame::DrainKind::Reload => DrainKind::Reload,
        frame::DrainKind::Stop => DrainKind::Stop,
    };
    phase.send_if_modified(|phase| {
        let stopping = *phase == Phase::Drain(DrainKind::Stop);
        if !stopping {
            *phase = Phase::Drain(kind);
        }
        !stopping
    });
}

fn summary(last: &Snapshot, current: &Snapshot, elapsed: Duration, lag: Duration) -> frame::Statistics {
    let answered = current.requests_total - last.requests_total;
    frame::Statistics {
        connections: current.connections as u64,
        requests_total: current.requests_total,
        requests_per_second: answered as f64 / elapsed.as_secs_f64(),
        p99_seconds: current.p99.map(|p99| p99.as_secs_f64()),
        loop_lag_seconds: lag.as_secs_f64(),
    }
}
