//! Keeping the worker's memory in step with the others: the subscription, which is fast, and the watchdog, which is sure.

pub(crate) mod lane;
pub(crate) mod message;
pub(crate) mod pending;
pub(crate) mod receiver;
pub(crate) mod validity;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use redis_store::Event;

use crate::{
    change::finish_overdue,
    coherence::message::{Message, News},
    coherence::pending::Work,
    coherence::receiver::{OnHead, OnLog, OnMessage, Position},
    keys::LANES,
    l1::EntryKey,
    l2::LogEntry,
    shared::{KEYS_PER_CALL, NamespaceState, Shared},
};

/// How often the lanes' heads are read. Together with a round trip it bounds staleness while Redis answers at all.
const LOOK: Duration = Duration::from_secs(1);
/// How often to look while Redis, or the subscription, is away.
const PROBE: Duration = Duration::from_millis(250);
/// How long a message may take that the log already shows; beyond it the subscription is suspected to be dead.
const MESSAGE_DELAY_MS: u64 = 250;

/// The subscriber's task: follows the channels of all namespaces.
pub(crate) async fn subscribe(shared: Arc<Shared>) {
    let mut namespaces = shared.namespaces.subscribe();
    loop {
        let channels: Vec<String> =
            namespaces.borrow_and_update().iter().map(|namespace| namespace.channel.clone()).collect();
        let mut subscription = shared.l2.store().subscribe(channels);
        shared.is_subscribed.store(false, Ordering::Relaxed);
        loop {
            tokio::select! {
                event = subscription.next() => shared.take(event),
                _ = namespaces.changed() => break,
                () = shared.resubscribe.notified() => break,
            }
        }
    }
}

/// The watchdog's task: reads the heads of all lanes over the data connection, catches up where the subscription left
/// something out, and delivers what could not be delivered before.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let store = shared.l2.store();
    store.first_attempt().await;
    let mut suspicion = None;
    loop {
        let may_look = store.is_connected() && shared.l2.may_probe();
        let known = shared.namespaces.borrow().len();
        let is_healthy = may_look && look(&shared, &mut suspicion).await.is_ok();
        if may_look {
            // However it ended: reads must not wait for a Redis that answers nothing of use.
            shared.looked_at.send_replace(known);
        }
        deliver(&shared).await;
        if is_healthy {
            // What fails now is overdue the next time, too.
            let _ = finish_overdue(&shared).await;
        }
        shared.flights.sweep(shared.clock.now_ms());
        shared.metrics.pending.set(shared.pending.len() as f64);
        shared.metrics.l1_bytes.set(shared.l1.weight() as f64);
        // A breaker that is about to close wants several answers: do not let reads wait for them.
        if is_healthy && !shared.l2.is_reachable() {
            continue;
        }
        // Without a subscription only these looks bring news.
        let is_calm = is_healthy && shared.is_subscribed.load(Ordering::Relaxed);
        let pause = if is_calm { LOOK } else { PROBE };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.look_now.notified() => {}
            () = store.connected(), if !store.is_connected() => {}
        }
    }
}

/// A number that the log shows and the subscription has not brought.
struct Suspicion {
    namespace: Arc<NamespaceState>,
    lane: usize,
    sequence: u64,
    since_ms: u64,
}

impl Suspicion {
    /// What is left of it: nothing once the message has come, or once the subscription is being replaced.
    fn examine(self, shared: &Shared) -> Option<Self> {
        let has_come = self.namespace.lane(self.lane).delivered() >= self.sequence;
        if has_come || !shared.is_subscribed.load(Ordering::Relaxed) {
            return None;
        }
        if shared.clock.now_ms() < self.since_ms + MESSAGE_DELAY_MS {
            return Some(self);
        }
        tracing::warn!(namespace = self.namespace.name, "the cache's subscription is silent and is being replaced");
        shared.metrics.subscription_rebuilds.inc();
        shared.resubscribe.notify_one();
        None
    }
}

/// One round of the watchdog; afterwards nothing is missing of what Redis had executed when it began.
async fn look(shared: &Shared, suspicion: &mut Option<Suspicion>) -> Result<(), redis_store::Error> {
    *suspicion = suspicion.take().and_then(|suspicion| suspicion.examine(shared));
    let namespaces = shared.namespaces.borrow().clone();
    let lanes: Vec<(&Arc<NamespaceState>, usize)> =
        namespaces.iter().flat_map(|namespace| (0..LANES).map(move |lane| (namespace, lane))).collect();
    let asked_at: Vec<Option<Position>> =
        lanes.iter().map(|(namespace, lane)| namespace.lane(*lane).position()).collect();
    let asked_ms = shared.clock.now_ms();
    let addresses: Vec<_> = lanes.iter().map(|(namespace, lane)| namespace.address(*lane)).collect();
    let heads = shared.l2.heads(&addresses).await?;

    let mut behind = Vec::new();
    for ((&(namespace, lane), asked_at), head) in lanes.iter().zip(asked_at).zip(heads) {
        match namespace.lane(lane).head(asked_at, head) {
            OnHead::InStep => namespace.lane(lane).confirm(asked_ms),
            OnHead::Behind(after) => behind.push((namespace, lane, after, head)),
            OnHead::Broken => {
                shared.flights.detach_lane(namespace.id, lane);
                if asked_at.is_some() {
                    shared.metrics.dropped_by_sequence.inc();
                }
                namespace.lane(lane).confirm(asked_ms);
            }
        }
    }
    catch_up(shared, &behind, asked_ms).await?;
    if let (None, Some((namespace, lane, _, head))) = (&suspicion, behind.first()) {
        *suspicion = Some(Suspicion {
            namespace: Arc::clone(namespace),
            lane: *lane,
            sequence: head.sequence,
            since_ms: shared.clock.now_ms(),
        });
    }
    Ok(())
}

/// Reads the logs of the lanes that are behind.
async fn catch_up(
    shared: &Shared,
    behind: &[(&Arc<NamespaceState>, usize, u64, Position)],
    asked_ms: u64,
) -> Result<(), redis_store::Error> {
    if behind.is_empty() {
        return Ok(());
    }
    let afters: Vec<_> = behind.iter().map(|(namespace, lane, after, _)| (namespace.address(*lane), *after)).collect();
    let logs = shared.l2.logs(&afters).await?;
    for (&(namespace, lane, _, head), log) in behind.iter().zip(logs) {
        // A log that cannot be read is one that does not reach back.
        let entries: Vec<LogEntry> = log.unwrap_or_default();
        for entry in &entries {
            for key in &entry.keys {
                shared.apply(namespace, key, entry.sequence);
            }
        }
        let numbers: Vec<(u64, u64)> = entries.iter().map(|entry| (entry.previous, entry.sequence)).collect();
        match namespace.lane(lane).log(head, &numbers) {
            OnLog::CaughtUp => shared.metrics.catch_ups.inc(),
            OnLog::Broken => {
                shared.flights.detach_lane(namespace.id, lane);
                shared.metrics.dropped_by_log.inc();
            }
        }
        namespace.lane(lane).confirm(asked_ms);
    }
    Ok(())
}

/// Hands queued invalidations to Redis until one is refused.
async fn deliver(shared: &Shared) {
    while shared.l2.is_reachable() {
        let work = shared.pending.next(KEYS_PER_CALL);
        let result = match &work {
            Work::Nothing => return,
            Work::Keys(keys) => {
                let keys: Vec<_> = keys.iter().map(|(_, key)| key.clone()).collect();
                shared.publish(&keys).await
            }
            Work::Lane(_, namespace, lane) => shared.restart(&shared.namespace(*namespace), *lane).await,
        };
        if let Err(error) = result {
            if !error.is_outage() {
                tracing::error!(%error, "redis refuses the cache's invalidations");
            }
            return;
        }
        shared.pending.delivered(&work);
    }
}

impl Shared {
    /// Empties a lane for everybody, and for this worker before anything else is believed.
    pub(crate) async fn restart(&self, namespace: &NamespaceState, lane: usize) -> Result<(), redis_store::Error> {
        self.l2.restart(namespace.address(lane)).await?;
        namespace.lane(lane).lose();
        self.flights.detach_lane(namespace.id, lane);
        self.look_now.notify_one();
        Ok(())
    }

    fn take(&self, event: Event) {
        match event {
            // What was published before is in the log.
            Event::Subscribed => {
                self.is_subscribed.store(true, Ordering::Relaxed);
                self.look_now.notify_one();
            }
            Event::Lost => self.is_subscribed.store(false, Ordering::Relaxed),
            Event::Message { channel, payload } => self.receive(&channel, &payload),
        }
    }

    fn receive(&self, channel: &[u8], payload: &[u8]) {
        let namespaces = self.namespaces.borrow();
        let Some(namespace) = namespaces.iter().find(|namespace| namespace.channel.as_bytes() == channel) else {
            return;
        };
        let Some(message) = Message::decode(payload).filter(|message| usize::from(message.lane) < LANES) else {
            // The heads will show whether it invalidated anything.
            self.metrics.unreadable_messages.inc();
            self.look_now.notify_one();
            return;
        };
        match &message.news {
            News::Filled(keys) => {
                for key in keys {
                    self.flights.wake(&EntryKey::new(namespace.id, key));
                }
            }
            News::Invalidated(keys) => self.invalidated(namespace, &message, keys),
        }
    }

    fn invalidated(&self, namespace: &NamespaceState, message: &Message, keys: &[String]) {
        for key in keys {
            self.apply(namespace, key, message.sequence);
        }
        if let Some(now_us) = self.clock.redis_now_us()
            && message.time_us > 0
        {
            self.metrics.lag_seconds.record(now_us.saturating_sub(message.time_us) as f64 / 1e6);
        }
        let number = usize::from(message.lane);
        let lane = namespace.lane(number);
        let at = Position { epoch: message.epoch, sequence: message.sequence };
        let was_placed = lane.position().is_some();
        match lane.message(message.previous, at) {
            OnMessage::Next | OnMessage::Known => lane.deliver(message.sequence),
            OnMessage::Gap => {
                lane.deliver(message.sequence);
                self.metrics.gaps.inc();
                self.look_now.notify_one();
            }
            OnMessage::Lost => {
                self.flights.detach_lane(namespace.id, number);
                if was_placed {
                    self.metrics.dropped_by_epoch.inc();
                }
                self.look_now.notify_one();
            }
        }
    }
}
