//! A subscription that says when it may have missed something.
//!
//! fred's own subscriber ends for good after one overflow and resubscribes without telling. Here every doubt (an
//! overflow, a lost connection, a connection that does not answer) ends the connection, is reported, and a new one is
//! made.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::{
    clients::Client,
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::{ClusterHash, CustomCommand, Message, Value},
};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc,
    },
    task::JoinSet,
};

use crate::{
    config::Config,
    connection::{Dialer, RECONNECT, STABLE, Session},
    patience,
    reply::Reply,
};

/// How often the connection is asked whether it is alive, and how long it may take to say so. Together they bound the
/// time in which a black-holed subscriber believes that nothing happens.
const HEARTBEAT: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(1);

const NOBODY_LISTENS: &str = "nobody listens";

/// Events on their way to the consumer; the large buffer is fred's, which notices when it overflows.
const HANDOVER: usize = 64;

/// What a subscriber sees. It starts with `Subscribed` or `Lost`, and `Message` only comes between the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// From now on every message arrives, until `Lost`.
    Subscribed,
    /// A message.
    Message {
        /// The channel it was published on.
        channel: Bytes,
        /// What was published.
        payload: Bytes,
    },
    /// Messages may have been missed, and will be until `Subscribed`.
    Lost,
}

/// A subscription to some channels. It ends when dropped.
pub struct Subscription {
    events: mpsc::Receiver<Event>,
    _task: JoinSet<()>,
}

impl Subscription {
    pub(crate) fn start(config: &Config, channels: Vec<String>) -> Self {
        let (sender, events) = mpsc::channel(HANDOVER);
        let mut task = JoinSet::new();
        task.spawn(keep_subscribed(Dialer::for_messages(config), channels, sender));
        Self { events, _task: task }
    }

    /// The next event. May be dropped while it waits without losing one.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // Only a runtime that is shutting down ends the task.
            None => std::future::pending().await,
        }
    }
}

async fn keep_subscribed(dialer: Dialer, channels: Vec<String>, events: mpsc::Sender<Event>) {
    let mut failures = 0_u32;
    let mut told_lost = false;
    loop {
        let since = Instant::now();
        let (subscribed, reason) = match dialer.dial().await {
            Ok(session) => relay(session, &channels, &events).await,
            Err(reason) => (false, reason),
        };
        if (subscribed || !told_lost) && events.send(Event::Lost).await.is_err() {
            return;
        }
        told_lost = true;
        if since.elapsed() >= STABLE {
            failures = 0;
        }
        match failures {
            0 => tracing::warn!(reason, "lost the subscription to redis and keeps trying"),
            _ => tracing::debug!(reason, "still cannot subscribe to redis"),
        }
        failures = failures.saturating_add(1);
        tokio::time::sleep(RECONNECT.delay(failures, fastrand::f64())).await;
    }
}

/// Subscribes and hands on messages until something is wrong; says whether it got as far as subscribing, and what was
/// wrong.
async fn relay(mut session: Session, channels: &[String], events: &mpsc::Sender<Event>) -> (bool, String) {
    let client = session.client();
    let messages = client.message_rx();
    if let Err(error) = client.subscribe(channels.to_vec()).await {
        return (false, error.to_string());
    }
    // fred does not wait for the answer to SUBSCRIBE. PING is answered after it, on the same connection; should
    // SUBSCRIBE be refused, its error comes in place of the answer.
    if !is_alive(&client).await {
        return (false, "the subscription was not confirmed".to_owned());
    }
    if events.send(Event::Subscribed).await.is_err() {
        return (false, NOBODY_LISTENS.to_owned());
    }
    let reason = tokio::select! {
        reason = session.ended() => reason,
        reason = deliver(messages, events) => reason,
        () = silence(&client) => "no answer on the subscription's connection".to_owned(),
    };
    (true, reason)
}

/// Hands on messages until one is missed.
async fn deliver(mut messages: broadcast::Receiver<Message>, events: &mpsc::Sender<Event>) -> String {
    loop {
        let message = match messages.recv().await {
            Ok(message) => event(message),
            Err(RecvError::Lagged(missed)) => return format!("missed {missed} messages"),
            Err(RecvError::Closed) => return "closed".to_owned(),
        };
        if events.send(message).await.is_err() {
            return NOBODY_LISTENS.to_owned();
        }
    }
}

/// Waits until the connection no longer answers.
async fn silence(client: &Client) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        if !is_alive(client).await {
            return;
        }
    }
}

async fn is_alive(client: &Client) -> bool {
    // fred sends the subscriptions of a client to the node that holds the slot of the client's name.
    let route = ClusterHash::Custom(fred::util::redis_keyslot(client.id().as_bytes()));
    let ping = CustomCommand::new_static("PING", route, false);
    let answer = Box::pin(client.custom_raw(ping, Vec::<Value>::new()));
    match patience::within(ANSWER, answer).await {
        Some(Ok(frame)) => Reply::from_frame(frame).is_ok(),
        Some(Err(_)) | None => false,
    }
}

fn event(message: Message) -> Event {
    Event::Message {
        channel: message.channel.into_inner(),
        payload: match message.value {
            Value::Bytes(bytes) => bytes,
            Value::String(text) => text.into_inner(),
            other => other.into_string().unwrap_or_default().into(),
        },
    }
}
