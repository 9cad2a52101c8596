//! Being a member, and hearing of the others.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use redis_store::{Bytes, Error, RedisStore, Reply, Script};
use telemetry::{Combine, Gauge, Registry};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::member::Member;

/// How often a worker says that it is there.
const BEAT: Duration = Duration::from_secs(1);
/// How long it is remembered.
const EXPIRY: Duration = Duration::from_secs(5);

/// This worker among all others. It says so until this value is dropped, and is forgotten about ten seconds later.
pub struct Membership {
    members: watch::Receiver<Arc<[Member]>>,
    _beating: JoinSet<()>,
}

impl Membership {
    /// Joins the others at `store`. Must be called inside a tokio runtime; returns at once, also without Redis.
    pub fn join(store: &RedisStore, prefix: &str, own: Member, registry: &Registry) -> Self {
        let help = "Workers of all hosts on this Redis, as the worker that knows fewest heard last.";
        let (told, members) = watch::channel(Arc::from([own]));
        let heart = Heart {
            store: store.clone(),
            beat: Script::new(include_str!("beat.lua")),
            key: Bytes::from(format!("{prefix}:cluster:workers")),
            own,
            gauge: registry.gauge_combined("bellwether_cluster_workers", help, &[], Combine::Min),
            known: Known::default(),
            told,
        };
        let mut beating = JoinSet::new();
        beating.spawn(heart.beat_for_ever());
        Self { members, _beating: beating }
    }

    /// All members that are known, in order, this worker included; the last ones while Redis is away.
    pub fn members(&self) -> watch::Receiver<Arc<[Member]>> {
        self.members.clone()
    }
}

struct Heart {
    store: RedisStore,
    beat: Script,
    key: Bytes,
    own: Member,
    gauge: Gauge,
    known: Known,
    told: watch::Sender<Arc<[Member]>>,
}

impl Heart {
    async fn beat_for_ever(mut self) {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            match self.beat_once().await {
                Ok(heard) => self.tell(&heard),
                Err(error) => tracing::debug!(%error, "Workers of other hosts are not heard of"),
            }
        }
    }

    async fn beat_once(&self) -> Result<Vec<Member>, Error> {
        let arguments = [self.own.to_string().into(), (EXPIRY.as_millis() as i64).into()];
        let names = self.store.run(&self.beat, std::slice::from_ref(&self.key), &arguments).await?.into_array()?;
        let names = names.into_iter().map(Reply::into_bytes).collect::<Result<Vec<_>, _>>()?;
        // What else is there was written by somebody else.
        Ok(names.iter().filter_map(|name| str::from_utf8(name).ok()?.parse().ok()).collect())
    }

    fn tell(&mut self, heard: &[Member]) {
        let members = self.known.after(heard, Instant::now());
        self.gauge.set(members.len() as f64);
        self.told.send_if_modified(|told| {
            let is_news = **told != *members;
            if is_news {
                tracing::debug!(workers = members.len(), "Cluster has changed");
                *told = members.into();
            }
            is_news
        });
    }
}

/// Who is known, and since when Redis has not named him.
#[derive(Default)]
struct Known(BTreeMap<Member, Option<Instant>>);

impl Known {
    /// All that are known after Redis has named those in `heard`. Whoever is missing stays as long as he is remembered in Redis: one
    /// that has lost its memory is told again by then.
    fn after(&mut self, heard: &[Member], now: Instant) -> Vec<Member> {
        for missing_since in self.0.values_mut() {
            missing_since.get_or_insert(now);
        }
        self.0.extend(heard.iter().map(|member| (*member, None)));
        self.0
            .retain(|_, missing_since| missing_since.is_none_or(|since| now.saturating_duration_since(since) < EXPIRY));
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;

    #[test]
    fn whoever_is_not_named_is_missed_for_five_seconds() {
        let member = |worker| Member { host: Host(1), worker };
        let (mut known, start) = (Known::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(known.after(&[member(0), member(1)], at(0)), [member(0), member(1)]);
        assert_eq!(known.after(&[member(0)], at(60)), [member(0), member(1)]);
        assert_eq!(known.after(&[member(0), member(1)], at(62)), [member(0), member(1)]);
        assert_eq!(known.after(&[member(0), member(2)], at(70)), [member(0), member(1), member(2)]);
        assert_eq!(known.after(&[member(0), member(2)], at(75)), [member(0), member(2)]);
    }
}
