//! The cache in Redis: typed calls of the scripts, behind a breaker.
//!
//! While the breaker is not closed every call fails at once, so that reads do not wait for a Redis that is away; only the
//! watchdog's calls go out to see whether it is back.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis_store::{Arg, Bytes, Error, RedisStore, Reply, Script};
use resilience::{Breaker, BreakerConfig, Permit, State};

use crate::{
    change::{MOST_TAKEN, TAKEN_FOR},
    clock::Clock,
    coherence::message::{self, Message, News},
    coherence::receiver::Position,
    holder::Holder,
    keys::LaneKeys,
};

/// Open only shortly, because nothing but the watchdog's calls goes out then: no read waits for them.
const BREAKER: BreakerConfig =
    BreakerConfig { failures: 3, open: Duration::from_millis(200), max_open: Duration::from_millis(200) };
/// A lane that nobody leased or invalidated for this long has no entries either.
const META_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Redis refuses a TTL of nothing.
const SHORTEST_TTL: Duration = Duration::from_millis(1);
const LOG_TTL: Duration = Duration::from_secs(3600);
/// Per lane: at a thousand invalidations a second in a namespace this reaches back more than two minutes. Who was away
/// for longer drops the lane, which costs reads of Redis and no more.
const LOG_LENGTH: i64 = 10_000;
/// A receiver that is further behind than this drops the lane instead of reading on.
pub(crate) const CATCH_UP_ENTRIES: i64 = 2_000;

/// One lane as the scripts address it.
#[derive(Clone, Copy)]
pub(crate) struct LaneAddress<'a> {
    pub(crate) keys: &'a LaneKeys,
    pub(crate) channel: &'a str,
    pub(crate) lane: usize,
}

/// The answer to a request for a lease.
pub(crate) enum Leased {
    /// There is an entry after all.
    Present(Bytes),
    /// Another process is loading.
    Waiting { left: Duration, holder: String },
    /// Another process has failed to load, and nobody is to try again for so long.
    FailedElsewhere { left: Duration },
    /// Load it, and fill with this token.
    Granted(Grant),
}

/// The right to fill one entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grant {
    pub(crate) epoch: u64,
    pub(crate) token: u64,
}

/// An entry of a lane's log.
pub(crate) struct LogEntry {
    pub(crate) previous: u64,
    pub(crate) sequence: u64,
    pub(crate) keys: Vec<String>,
}

/// What leases are asked for.
pub(crate) struct LeaseRequest<'a> {
    pub(crate) address: LaneAddress<'a>,
    pub(crate) key: &'a str,
    pub(crate) signature: [u8; 8],
    /// The version of an entry that is not wanted: it cannot be read, is old, or is to be replaced; 0 for none.
    pub(crate) unwanted: u64,
    /// A holder that has died; empty for none.
    pub(crate) died: &'a str,
    /// Whether there is something old to make do with, so that a failure elsewhere is respected for longer.
    pub(crate) has_old: bool,
    pub(crate) lease: Duration,
}

/// The keys of one lane that an invalidation names.
pub(crate) struct Group<'a> {
    pub(crate) address: LaneAddress<'a>,
    pub(crate) keys: Vec<&'a str>,
}

struct Scripts {
    lease: Script,
    fill: Script,
    release: Script,
    invalidate: Script,
    heads: Script,
    log: Script,
    restart: Script,
    announce: Script,
    overdue: Script,
    settle: Script,
}

/// The connection and what is needed to speak over it.
pub(crate) struct L2 {
    store: RedisStore,
    breaker: Mutex<Breaker>,
    clock: Arc<Clock>,
    /// Names this instance in messages; made in this process, never inherited.
    identity: u64,
    /// And in leases.
    holder: Holder,
    /// The list of announced changes.
    changes: Bytes,
    scripts: Scripts,
}

impl L2 {
    pub(crate) fn new(store: RedisStore, clock: Arc<Clock>, prefix: &str) -> Self {
        let identity = random_number();
        Self {
            store,
            breaker: Mutex::new(Breaker::new(BREAKER)),
            clock,
            identity,
            holder: Holder::of_this_process(identity),
            changes: crate::keys::changes(prefix),
            scripts: Scripts {
                lease: Script::new(include_str!("scripts/lease.lua")),
                fill: Script::new(include_str!("scripts/fill.lua")),
                release: Script::new(include_str!("scripts/release.lua")),
                invalidate: Script::new(include_str!("scripts/invalidate.lua")),
                heads: Script::new(include_str!("scripts/heads.lua")),
                log: Script::new(include_str!("scripts/log.lua")),
                restart: Script::new(include_str!("scripts/restart.lua")),
                announce: Script::new(include_str!("scripts/announce.lua")),
                overdue: Script::new(include_str!("scripts/overdue.lua")),
                settle: Script::new(include_str!("scripts/settle.lua")),
            },
        }
    }

    pub(crate) fn store(&self) -> &RedisStore {
        &self.store
    }

    /// Whether calls go out.
    pub(crate) fn is_reachable(&self) -> bool {
        self.breaker().state() == State::Closed
    }

    /// Whether the watchdog may try now.
    pub(crate) fn may_probe(&self) -> bool {
        !matches!(self.breaker().permit(Instant::now()), Permit::Refused { .. })
    }

    /// The entry as it lies in Redis.
    pub(crate) async fn get(&self, address: LaneAddress<'_>, key: &str) -> Result<Option<Bytes>, Error> {
        self.gate()?;
        self.judge(self.store.get(&address.keys.entry(key)).await)
    }

    /// Asks for the right to load.
    pub(crate) async fn lease(&self, request: &LeaseRequest<'_>) -> Result<Leased, Error> {
        let keys = request.address.keys;
        let keys = [keys.entry(request.key), keys.guard(request.key), keys.meta.clone()];
        let args = [
            request.signature.to_vec().into(),
            // As text: a damaged one may be larger than what is signed.
            request.unwanted.to_string().into(),
            self.holder.name().to_owned().into(),
            millis(request.lease),
            integer(random_number()),
            millis(META_TTL),
            request.died.to_owned().into(),
            integer(request.has_old.into()),
        ];
        let sent_us = self.clock.now_us();
        let mut fields = self.run(&self.scripts.lease, &keys, &args).await?.into_array()?.into_iter();
        let verdict = next_number(&mut fields)?;
        self.clock.learn(sent_us, next_number(&mut fields)?);
        let epoch = next_number(&mut fields)?;
        Ok(match verdict {
            0 => Leased::Present(next(&mut fields)?.into_bytes()?),
            1 => {
                let left = Duration::from_millis(next_number(&mut fields).unwrap_or(0));
                let holder = next(&mut fields)?.into_bytes()?;
                Leased::Waiting { left, holder: String::from_utf8_lossy(&holder).into_owned() }
            }
            2 => Leased::FailedElsewhere { left: Duration::from_millis(next_number(&mut fields).unwrap_or(0)) },
            _ => Leased::Granted(Grant { epoch, token: next_number(&mut fields)? }),
        })
    }

    /// Whether the holder of a lease has certainly ended.
    pub(crate) fn has_ended(&self, holder: &str) -> bool {
        self.holder.has_ended(holder)
    }

    /// Stores a value under a grant; false when the grant is void.
    pub(crate) async fn fill(
        &self,
        address: LaneAddress<'_>,
        key: &str,
        grant: Grant,
        entry: Vec<u8>,
        ttl: Duration,
    ) -> Result<bool, Error> {
        let keys = [address.keys.entry(key), address.keys.guard(key), address.keys.meta.clone()];
        let args = [
            integer(grant.token),
            integer(grant.epoch),
            entry.into(),
            millis(ttl.max(SHORTEST_TTL)),
            address.channel.to_owned().into(),
            self.filled(address, key).into(),
        ];
        let reply = self.run(&self.scripts.fill, &keys, &args).await?;
        Ok(reply.into_integer()? == 1)
    }

    /// Gives a grant back; a failure answers for other workers for `hold`, and for `throttle` for those who have something old.
    pub(crate) async fn release(
        &self,
        address: LaneAddress<'_>,
        key: &str,
        grant: Grant,
        (hold, throttle): (Duration, Duration),
    ) -> Result<(), Error> {
        let keys = [address.keys.guard(key)];
        let args = [
            integer(grant.token),
            millis(hold),
            millis(throttle),
            address.channel.to_owned().into(),
            self.filled(address, key).into(),
        ];
        self.run(&self.scripts.release, &keys, &args).await.map(drop)
    }

    /// Invalidates, and tells each group's epoch and sequence number. On a cluster one group at a time.
    pub(crate) async fn invalidate(&self, groups: &[Group<'_>]) -> Result<Vec<Position>, Error> {
        self.gate()?;
        let batch = if self.store.is_cluster() { 1 } else { groups.len().max(1) };
        let mut positions = Vec::with_capacity(groups.len());
        for groups in groups.chunks(batch) {
            let mut keys = Vec::new();
            let mut args = vec![
                integer(self.identity),
                integer(random_number()),
                millis(META_TTL),
                millis(LOG_TTL),
                LOG_LENGTH.into(),
            ];
            for group in groups {
                let names = group.address.keys;
                keys.extend([names.meta.clone(), names.log.clone()]);
                keys.extend(group.keys.iter().flat_map(|key| [names.entry(key), names.guard(key)]));
                args.extend([
                    integer(group.keys.len() as u64),
                    group.address.channel.to_owned().into(),
                    integer(group.address.lane as u64),
                    message::encode_keys(&group.keys).into(),
                ]);
            }
            let answer = self.positions(&self.scripts.invalidate, &keys, &args).await;
            positions.extend(self.judge(answer)?);
        }
        Ok(positions)
    }

    /// Where each lane stands. Goes out whatever the breaker says: ask [`L2::may_probe`] first.
    pub(crate) async fn heads(&self, lanes: &[LaneAddress<'_>]) -> Result<Vec<Position>, Error> {
        let batch = if self.store.is_cluster() { 1 } else { lanes.len().max(1) };
        let mut positions = Vec::with_capacity(lanes.len());
        for lanes in lanes.chunks(batch) {
            let keys: Vec<Bytes> = lanes.iter().map(|lane| lane.keys.meta.clone()).collect();
            let args = [integer(random_number()), millis(META_TTL)];
            let answer = self.positions(&self.scripts.heads, &keys, &args).await;
            positions.extend(self.judge(answer)?);
        }
        Ok(positions)
    }

    /// What was invalidated in each lane after a number; `None` where an entry cannot be read.
    pub(crate) async fn logs(&self, lanes: &[(LaneAddress<'_>, u64)]) -> Result<Vec<Option<Vec<LogEntry>>>, Error> {
        let batch = if self.store.is_cluster() { 1 } else { lanes.len().max(1) };
        let mut logs = Vec::with_capacity(lanes.len());
        for lanes in lanes.chunks(batch) {
            let keys: Vec<Bytes> = lanes.iter().map(|(lane, _)| lane.keys.log.clone()).collect();
            let afters = lanes.iter().map(|(_, after)| integer(*after));
            let args: Vec<Arg> = std::iter::once(CATCH_UP_ENTRIES.into()).chain(afters).collect();
            let answer = self.judge(self.store.run(&self.scripts.log, &keys, &args).await)?;
            logs.extend(answer.into_array()?.into_iter().map(|flat| log_entries(flat).ok()));
        }
        Ok(logs)
    }

    /// Begins a new epoch of a lane, which empties it for everybody.
    pub(crate) async fn restart(&self, address: LaneAddress<'_>) -> Result<(), Error> {
        let epoch = random_number();
        let message = Message { epoch, news: News::Invalidated(Vec::new()), ..self.message(address) };
        let args = [integer(epoch), millis(META_TTL), address.channel.to_owned().into(), message.encode().into()];
        let keys = [address.keys.meta.clone()];
        self.run(&self.scripts.restart, &keys, &args).await.map(drop)
    }

    /// Notes a change that is about to be made; after `timeout` it is overdue.
    pub(crate) async fn announce(&self, change: &Bytes, timeout: Duration) -> Result<(), Error> {
        let args = [change.clone().into(), millis(timeout), millis(META_TTL)];
        self.run(&self.scripts.announce, std::slice::from_ref(&self.changes), &args).await.map(drop)
    }

    /// Takes over overdue changes.
    pub(crate) async fn overdue(&self) -> Result<Vec<Bytes>, Error> {
        let args = [millis(TAKEN_FOR), MOST_TAKEN.into()];
        let changes = self.run(&self.scripts.overdue, std::slice::from_ref(&self.changes), &args).await?;
        changes.into_array()?.into_iter().map(Reply::into_bytes).collect()
    }

    /// Strikes out a change.
    pub(crate) async fn settle(&self, change: &Bytes) -> Result<(), Error> {
        let args = [change.clone().into()];
        self.run(&self.scripts.settle, std::slice::from_ref(&self.changes), &args).await.map(drop)
    }

    /// Runs a script that answers the time and then pairs of epoch and number.
    async fn positions(&self, script: &Script, keys: &[Bytes], args: &[Arg]) -> Result<Vec<Position>, Error> {
        let sent_us = self.clock.now_us();
        let reply = self.store.run(script, keys, args).await?;
        let mut fields = reply.into_array()?.into_iter();
        self.clock.learn(sent_us, next_number(&mut fields)?);
        let mut positions = Vec::new();
        while fields.len() > 0 {
            let epoch = next_number(&mut fields)?;
            positions.push(Position { epoch, sequence: next_number(&mut fields)? });
        }
        Ok(positions)
    }

    fn filled(&self, address: LaneAddress<'_>, key: &str) -> Vec<u8> {
        let news = News::Filled(vec![key.to_owned()]);
        Message { news, ..self.message(address) }.encode()
    }

    fn message(&self, address: LaneAddress<'_>) -> Message {
        Message {
            epoch: 0,
            lane: address.lane as u16,
            previous: 0,
            sequence: 0,
            origin: self.identity,
            time_us: 0,
            news: News::Filled(Vec::new()),
        }
    }

    async fn run(&self, script: &Script, keys: &[Bytes], args: &[Arg]) -> Result<Reply, Error> {
        self.gate()?;
        self.judge(self.store.run(script, keys, args).await)
    }

    fn gate(&self) -> Result<(), Error> {
        if self.is_reachable() { Ok(()) } else { Err(Error::Unavailable) }
    }

    /// Tells the breaker how a call ended.
    fn judge<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        let now = Instant::now();
        match &result {
            Err(error) if error.is_outage() => self.breaker().failure(now),
            Ok(_) | Err(_) => self.breaker().success(now),
        }
        result
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A random number that Lua's doubles hold exactly, and never 0.
fn random_number() -> u64 {
    // `RandomState` is seeded by the operating system, so that workers started in one instant differ.
    (RandomState::new().hash_one(Instant::now()) >> 12) | 1
}

fn integer(value: u64) -> Arg {
    Arg::Integer(value as i64)
}

/// Rounded up, so that a duration which is not zero stays one.
fn millis(duration: Duration) -> Arg {
    Arg::Integer(duration.as_micros().div_ceil(1000) as i64)
}

fn next(fields: &mut impl Iterator<Item = Reply>) -> Result<Reply, Error> {
    fields.next().ok_or(Error::Unexpected { expected: "a longer list" })
}

fn next_number(fields: &mut impl Iterator<Item = Reply>) -> Result<u64, Error> {
    let number = next(fields)?.into_integer()?;
    u64::try_from(number).map_err(|_| Error::Unexpected { expected: "a natural number" })
}

fn log_entries(flat: Reply) -> Result<Vec<LogEntry>, Error> {
    let mut fields = flat.into_array()?.into_iter();
    let mut entries = Vec::new();
    while fields.len() > 0 {
        let (previous, sequence) = (next_number(&mut fields)?, next_number(&mut fields)?);
        let keys = message::decode_keys(&next(&mut fields)?.into_bytes()?);
        let keys = keys.ok_or(Error::Unexpected { expected: "encoded keys" })?;
        entries.push(LogEntry { previous, sequence, keys });
    }
    Ok(entries)
}
