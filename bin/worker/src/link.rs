//! The channel to the supervisor: orders come in, reports go out.

mod dependencies;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::Context as _;
use edge::{Adoption, DrainKind, Listener, Phase, Snapshot, Statistics};
use supervise::frame::{self, Decoder, FromWorker, ToWorker};
use supervise::worker_side::receive;
use telemetry::{Combine, Registry};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::divided::Divided;

/// How often the supervisor hears of this worker. It takes longer silence for a hanging loop.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often the loop is timed in between.
const LAG_INTERVAL: Duration = Duration::from_millis(100);
/// A supervisor that does not listen by then does not keep a drained worker from ending.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(1);
/// What is read at once; the metrics of all workers come in several pieces.
const PIECE_BYTES: usize = 16 * 1024;

/// The open channel. Frames of several senders go out one after another, each in one piece.
pub(crate) struct Link {
    orders: Mutex<OwnedReadHalf>,
    reports: Mutex<OwnedWriteHalf>,
    registry: Registry,
    questions: RefCell<Questions>,
}

/// What the supervisor's orders change.
pub(crate) struct Governed {
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) adoption: Adoption,
    pub(crate) divided: Divided,
}

/// Who wants to know the metrics of all workers.
#[derive(Default)]
struct Questions {
    asked: u64,
    waiting: HashMap<u64, oneshot::Sender<String>>,
}

impl Link {
    /// Takes over the inherited descriptor and greets the supervisor, which will be sent what `registry` holds.
    pub(crate) async fn open(descriptor: OwnedFd, registry: &Registry) -> anyhow::Result<Self> {
        let stream = std::os::unix::net::UnixStream::from(descriptor);
        stream.set_nonblocking(true).context("cannot use the supervisor's channel")?;
        let stream = UnixStream::from_std(stream).context("cannot watch the supervisor's channel")?;
        let (orders, mut reports) = stream.into_split();
        reports.write_all(&frame::greeting()).await.context("cannot greet the supervisor")?;
        Ok(Self {
            orders: Mutex::new(orders),
            reports: Mutex::new(reports),
            registry: registry.clone(),
            questions: RefCell::default(),
        })
    }

    /// Follows orders until the supervisor goes away.
    pub(crate) async fn obey(&self, governed: Governed) -> anyhow::Result<()> {
        let Governed { phase, adoption, divided } = governed;
        let orders = self.orders.lock().await;
        let channel: &UnixStream = (*orders).as_ref();
        let mut decoder = Decoder::new();
        let mut descriptors = VecDeque::new();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = channel.async_io(Interest::READABLE, || receive(channel.as_fd(), &mut piece));
            let (length, descriptor) = read.await.context("the channel broke")?;
            if length == 0 {
                return Ok(());
            }
            descriptors.extend(descriptor);
            decoder.push(&piece[..length]);
            while let Some(order) = decoder.next_message().context("the supervisor is not understood")? {
                match order {
                    ToWorker::Drain { kind } => drain(&phase, kind),
                    ToWorker::Adopt => adopt(&adoption, descriptors.pop_front()),
                    ToWorker::Metrics { request, text } => self.answer(request, text),
                    ToWorker::Workers { count } => divided.among(count),
                }
            }
        }
    }

    /// The first sign of life, from which on the supervisor watches over this worker.
    pub(crate) async fn say_alive(&self) -> anyhow::Result<()> {
        self.say(&FromWorker::Statistics(frame::Statistics::default())).await
    }

    /// Reports once a second.
    pub(crate) async fn report(&self, statistics: Statistics) -> anyhow::Result<()> {
        let help = "How late the loop ran at worst within a second, in the worker where that was longest.";
        let lag_gauge = self.registry.gauge_combined("bellwether_loop_lag_seconds", help, &[], Combine::Max);
        let mut ticks = interval(LAG_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut last_at, mut lag) = (statistics.snapshot(), Instant::now(), Duration::ZERO);
        loop {
            let due = ticks.tick().await;
            let now = Instant::now();
            lag = lag.max(now.saturating_duration_since(due));
            if now - last_at >= REPORT_INTERVAL {
                let current = statistics.snapshot();
                lag_gauge.set(lag.as_secs_f64());
                // The sign of life goes first.
                self.say(&FromWorker::Statistics(summary(&last, &current, now - last_at, lag))).await?;
                self.say_metrics().await?;
                (last, last_at, lag) = (current, now, Duration::ZERO);
            }
        }
    }

    /// Passes on every question for the metrics of all workers.
    pub(crate) async fn pass_on(&self, mut asked: mpsc::Receiver<oneshot::Sender<String>>) -> anyhow::Result<()> {
        while let Some(question) = asked.recv().await {
            let request = self.questions.borrow_mut().add(question);
            // So that whoever asks this worker finds what it has just counted.
            self.say_metrics().await?;
            self.say(&FromWorker::MetricsWanted { request }).await?;
        }
        Ok(())
    }

    /// The last thing a worker says, after its last counts. A supervisor that has gone does not need it.
    pub(crate) async fn say_drained(&self, cut: u64) {
        let last_words = async {
            self.say_metrics().await?;
            self.say(&FromWorker::Drained { cut }).await
        };
        let said = timeout(LAST_WORDS_PATIENCE, last_words).await.context("it does not listen").flatten();
        if let Err(error) = said {
            tracing::debug!(error = format!("{error:#}"), "Supervisor does not hear of the drain");
        }
    }

    async fn say_metrics(&self) -> anyhow::Result<()> {
        self.say(&FromWorker::Metrics(api::own_metrics(&self.registry))).await
    }

    async fn say(&self, message: &FromWorker) -> anyhow::Result<()> {
        self.reports.lock().await.write_all(&frame::encode(message)).await.context("the channel broke")
    }

    fn answer(&self, request: u64, text: String) {
        if let Some(question) = self.questions.borrow_mut().waiting.remove(&request) {
            // Whoever asked may have given up by now.
            let _ = question.send(text);
        }
    }
}

impl Questions {
    fn add(&mut self, question: oneshot::Sender<String>) -> u64 {
        self.waiting.retain(|_, question| !question.is_closed());
        self.asked += 1;
        self.waiting.insert(self.asked, question);
        self.asked
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

/// Without descriptors to spare the kernel drops the one that came: the queue is then left as it was.
fn adopt(adoption: &Adoption, descriptor: Option<OwnedFd>) {
    let Some(descriptor) = descriptor else {
        tracing::warn!("Worker cannot adopt a listener that did not come along");
        return;
    };
    match Listener::from_descriptor(descriptor) {
        Ok(listener) => adoption.adopt(listener),
        Err(error) => tracing::warn!(%error, "Worker cannot adopt a listener"),
    }
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
