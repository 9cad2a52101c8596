//! What each algorithm counts, written for being read: exact fractions, no state in pieces of text.

use std::collections::BTreeMap;

use crate::{
    rule::{Rule, RuleAlgorithm},
    state::held::Sequence,
};

/// The state of one counter.
#[derive(Debug, Clone)]
pub(super) enum Counter {
    /// Window's index, units.
    Window(u64, u64),
    /// When the bucket is empty again: whole microseconds, and a part of one over the denominator of the rule at that time.
    Bucket(u64, u64),
    /// Window's index, units in it and in the one before.
    Pair(u64, u64, u64),
    /// The part's index, and units in it and in the ten before, the oldest first.
    Parts(u64, [u64; 11]),
    /// When each unit was taken.
    Log(Vec<u64>),
    /// When each unit expires.
    Units(BTreeMap<Sequence, u64>),
}

/// A counter as a script sees it.
pub(super) struct Seen<'a> {
    pub(super) counter: Counter,
    pub(super) rule: &'a Rule,
    pub(super) seed: u32,
    pub(super) now: u64,
}

/// What is left, and what of it may be granted ahead.
pub(super) struct Left {
    pub(super) units: i128,
    pub(super) ahead: i128,
}

/// A rule's bucket in exact numbers: times in microseconds over `denominator`.
struct Bucket {
    unit: i128,
    denominator: i128,
    /// Of the burst alone, and with the delay.
    burst: i128,
    full: i128,
    hold: i128,
}

impl Bucket {
    fn of(rule: &Rule) -> Self {
        let limit = rule.limit.max(1);
        let mut divisor = (rule.window_us, limit);
        while divisor.1 > 0 {
            divisor = (divisor.1, divisor.0 % divisor.1);
        }
        let (unit, denominator) = (i128::from(rule.window_us / divisor.0), i128::from(limit / divisor.0));
        let burst = i128::from(rule.burst()) * unit;
        let full = burst + i128::from(rule.max_delay_us()) * denominator;
        let hold = (ceiling(burst, denominator) / 10).min(500_000) * denominator;
        Self { unit, denominator, burst, full, hold }
    }
}

fn offset(seed: u32, window_us: u64) -> u64 {
    (f64::from(seed) / 4_294_967_296.0 * window_us as f64).floor() as u64
}

fn ceiling(number: i128, divisor: i128) -> i128 {
    -((-number).div_euclid(divisor))
}

impl Counter {
    /// What a script sees at `now` of what was stored.
    fn read(known: Option<&Self>, rule: &Rule, seed: u32, now: u64) -> Self {
        let at = now - offset(seed, rule.window_us);
        let index = at / rule.window_us;
        match (rule.algorithm, known) {
            (RuleAlgorithm::FixedWindow, known) => match known {
                Some(Self::Window(stored, used)) if stored % 8190 == (index + 1) % 8190 => {
                    Self::Window(index + 1, *used)
                }
                Some(Self::Window(stored, used)) if stored % 8190 == index % 8190 => Self::Window(index, *used),
                _ => Self::Window(index, 0),
            },
            (RuleAlgorithm::Gcra | RuleAlgorithm::Pacing, known) => Self::read_bucket(known, rule, now),
            (RuleAlgorithm::SlidingCounter, known) => match known {
                Some(Self::Pair(stored, current, previous)) if *stored == index || *stored == index + 1 => {
                    Self::Pair(*stored, *current, *previous)
                }
                Some(Self::Pair(stored, current, _)) if *stored + 1 == index => Self::Pair(index, 0, *current),
                _ => Self::Pair(index, 0, 0),
            },
            (RuleAlgorithm::SlidingWindow, known) => {
                let index = at / rule.window_us.div_ceil(10);
                match known {
                    Some(Self::Parts(stored, counts)) if *stored > index && *stored <= index + 10 => {
                        Self::Parts(*stored, *counts)
                    }
                    Some(Self::Parts(stored, counts)) if *stored <= index && index - stored <= 10 => {
                        let mut shifted = [0; 11];
                        let passed = (index - stored) as usize;
                        shifted[..11 - passed].copy_from_slice(&counts[passed..]);
                        Self::Parts(index, shifted)
                    }
                    _ => Self::Parts(index, [0; 11]),
                }
            }
            (RuleAlgorithm::SlidingLog, known) => {
                let mut times = match known {
                    Some(Self::Log(times)) => times.clone(),
                    _ => Vec::new(),
                };
                if times.last().is_some_and(|newest| *newest > now + rule.window_us) {
                    times.clear();
                }
                let at = times.last().map_or(now, |newest| now.max(*newest));
                times.retain(|time| time + rule.window_us > at);
                Self::Log(times)
            }
            (RuleAlgorithm::Concurrency, known) => {
                let mut units = match known {
                    Some(Self::Units(units)) => units.clone(),
                    _ => BTreeMap::new(),
                };
                units.retain(|_, expiry| *expiry > now);
                Self::Units(units)
            }
        }
    }

    fn read_bucket(known: Option<&Self>, rule: &Rule, now: u64) -> Self {
        let Some(Self::Bucket(whole, part)) = known else { return Self::Bucket(now, 0) };
        let bucket = Bucket::of(rule);
        let part = if i128::from(*part) >= bucket.denominator { 0 } else { *part };
        if *whole < now {
            return Self::Bucket(now, 0);
        }
        let full = i128::from(now) * bucket.denominator + bucket.full;
        let time = i128::from(*whole) * bucket.denominator + i128::from(part);
        Self::bucket(time.min(full), &bucket)
    }

    fn bucket(time: i128, bucket: &Bucket) -> Self {
        Self::Bucket((time / bucket.denominator) as u64, (time % bucket.denominator) as u64)
    }
}

impl<'a> Seen<'a> {
    pub(super) fn new(known: Option<&Counter>, rule: &'a Rule, seed: u32, now: u64) -> Self {
        Self { counter: Counter::read(known, rule, seed, now), rule, seed, now }
    }

    pub(super) fn left(&self) -> Left {
        let limit = i128::from(self.rule.limit);
        let units = match &self.counter {
            Counter::Window(_, used) => limit - i128::from(*used),
            Counter::Bucket(..) => {
                let bucket = Bucket::of(self.rule);
                let room = bucket.full - self.backlog(&bucket);
                let ahead = (room - bucket.hold).div_euclid(bucket.unit).max(0);
                return Left { units: room / bucket.unit, ahead };
            }
            Counter::Pair(_, current, previous) => limit - i128::from(*current) - self.weighed(*previous),
            Counter::Parts(_, counts) => limit - i128::from(counts.iter().sum::<u64>()),
            Counter::Log(times) => limit - times.len() as i128,
            Counter::Units(units) => limit - units.len() as i128,
        };
        Left { units, ahead: units }
    }

    /// Takes so many units; gives what is left after them, and how long a request of `units` has to wait.
    pub(super) fn take(&mut self, taken: u64, units: u64, first: Sequence) -> (i64, i64) {
        let (rule, now) = (self.rule, self.now);
        match &mut self.counter {
            Counter::Window(_, used) => *used += taken,
            Counter::Bucket(..) => {
                let bucket = Bucket::of(rule);
                let time =
                    i128::from(now) * bucket.denominator + self.backlog(&bucket) + i128::from(taken) * bucket.unit;
                self.counter = Counter::bucket(time, &bucket);
            }
            Counter::Pair(_, current, _) => *current += taken,
            Counter::Parts(_, counts) => counts[10] += taken,
            Counter::Log(times) => {
                let at = times.last().map_or(now, |newest| now.max(*newest));
                times.extend(std::iter::repeat_n(at, taken as usize));
            }
            Counter::Units(held) => {
                held.extend((first..first + taken).map(|sequence| (sequence, now + rule.window_us)))
            }
        }
        let left = self.left().units.max(0);
        let never = left < i128::from(units) && rule.algorithm != RuleAlgorithm::Pacing && units > self.capacity();
        let wait = if never { -1 } else { self.wait(left, taken, i128::from(units)) };
        (left as i64, wait as i64)
    }

    /// What a change makes of it: nothing, no counter, or another.
    pub(super) fn settle(
        known: Option<&Counter>,
        rule: &'a Rule,
        seed: u32,
        (now, counted): (u64, u64),
        units: i64,
    ) -> Option<Option<Counter>> {
        let mut seen = Self::new(known, rule, seed, now);
        let give_back = units < 0;
        let is_there = known.is_some_and(|known| !matches!(known, Counter::Log(times) if times.is_empty()));
        if give_back && !is_there || rule.is_concurrency() {
            return None;
        }
        let (back, more) = ((-units).max(0) as u64, units.max(0) as u64);
        let counted_at = counted - offset(seed, rule.window_us);
        match (&mut seen.counter, known) {
            (Counter::Window(index, used), Some(Counter::Window(stored, known_used))) if give_back => {
                let counted_in = counted_at / rule.window_us;
                let is_its_own = counted_in % 8190 == stored % 8190;
                if stored % 8190 != *index % 8190 || !is_its_own || *known_used == 0 {
                    return None;
                }
                *used = known_used.saturating_sub(back);
            }
            (Counter::Window(_, used), _) => *used += more,
            (Counter::Bucket(..), _) => return seen.settle_bucket(units),
            (Counter::Pair(index, current, previous), _) if give_back => {
                let counted_in = counted_at / rule.window_us;
                let place = match counted_in {
                    at if at == *index => current,
                    at if at + 1 == *index => previous,
                    _ => return None,
                };
                if *place == 0 {
                    return None;
                }
                *place = place.saturating_sub(back);
            }
            (Counter::Pair(_, current, _), _) => *current += more,
            (Counter::Parts(index, counts), _) => {
                let place = if give_back {
                    let ago = *index as i64 - (counted_at / rule.window_us.div_ceil(10)) as i64;
                    usize::try_from(10 - ago).ok().filter(|place| *place <= 10 && counts[*place] > 0)?
                } else {
                    10
                };
                counts[place] = (counts[place] + more).saturating_sub(back);
            }
            (Counter::Log(_), known) => {
                // Expired units leave only when somebody is let through.
                let mut times = if let Some(Counter::Log(times)) = known { times.clone() } else { Vec::new() };
                if give_back {
                    let mut removed = 0;
                    times.retain(|time| {
                        let is_meant = *time == counted && removed < back;
                        removed += u64::from(is_meant);
                        !is_meant
                    });
                    return (removed > 0).then(|| (!times.is_empty()).then_some(Counter::Log(times)));
                }
                let at = times.last().map_or(now, |newest| now.max(*newest));
                times.extend(std::iter::repeat_n(at, more.min(rule.limit) as usize));
                return Some((!times.is_empty()).then_some(Counter::Log(times)));
            }
            (Counter::Units(_), _) => return None,
        }
        Some(Some(seen.counter))
    }

    fn settle_bucket(mut self, units: i64) -> Option<Option<Counter>> {
        let bucket = Bucket::of(self.rule);
        let backlog = self.backlog(&bucket);
        if units < 0 && backlog == 0 {
            return None;
        }
        let backlog = (backlog + i128::from(units) * bucket.unit).min(bucket.full);
        if backlog <= 0 {
            return Some(None);
        }
        self.counter = Counter::bucket(i128::from(self.now) * bucket.denominator + backlog, &bucket);
        Some(Some(self.counter))
    }

    fn capacity(&self) -> u64 {
        if matches!(self.counter, Counter::Bucket(..)) { self.rule.burst() } else { self.rule.limit }
    }

    fn backlog(&self, bucket: &Bucket) -> i128 {
        let Counter::Bucket(whole, part) = self.counter else { unreachable!() };
        i128::from(whole - self.now) * bucket.denominator + i128::from(part)
    }

    /// The part of the last window that the sliding window covers, rounded up; it is told in a millionth of the window.
    fn weighed(&self, previous: u64) -> i128 {
        let (step, steps) = steps(self.rule);
        ceiling(i128::from(previous) * (steps - self.elapsed() / step), steps)
    }

    fn elapsed(&self) -> i128 {
        let Counter::Pair(index, ..) = self.counter else { unreachable!() };
        let began = index * self.rule.window_us + offset(self.seed, self.rule.window_us);
        (i128::from(self.now) - i128::from(began)).max(0)
    }

    fn wait(&self, left: i128, taken: u64, units: i128) -> i128 {
        let (window, offset) = (i128::from(self.rule.window_us), i128::from(offset(self.seed, self.rule.window_us)));
        let (limit, now) = (i128::from(self.rule.limit), i128::from(self.now));
        let wanted = units.max(left + 1);
        match &self.counter {
            Counter::Window(index, _) => i128::from(index + 1) * window + offset - now,
            Counter::Bucket(..) => self.wait_for_bucket(left, taken, units),
            Counter::Units(_) => {
                if left < units {
                    1_000_000
                } else {
                    0
                }
            }
            _ if left >= limit => 0,
            Counter::Pair(_, current, previous) => {
                let elapsed = self.elapsed();
                // The first step of this window, or of the next one, at which so many fit.
                let (step, steps) = steps(self.rule);
                let fits = |current: i128, previous: i128, at: i128| {
                    current * steps + previous * (steps - at) + wanted * steps <= limit * steps
                };
                let first = |current: i128, previous: i128| first_of(steps, |at| fits(current, previous, at));
                match first((*current).into(), (*previous).into()) {
                    Some(at) => ((at * step).min(window) - elapsed).max(0),
                    None => {
                        let at = first(0, (*current).into()).unwrap_or(steps);
                        window - elapsed + (at * step).min(window)
                    }
                }
            }
            Counter::Parts(index, counts) => {
                let mut missing = wanted - left;
                let leaves = counts.iter().position(|count| {
                    missing -= i128::from(*count);
                    missing <= 0
                });
                let part = i128::from(self.rule.window_us.div_ceil(10));
                (i128::from(*index) + 1 + leaves.unwrap_or(10) as i128) * part + offset - now
            }
            Counter::Log(times) => {
                let leaves = times.get((wanted - left - 1) as usize);
                leaves.map_or(0, |time| i128::from(*time) + window - now)
            }
        }
    }

    fn wait_for_bucket(&self, left: i128, taken: u64, units: i128) -> i128 {
        let bucket = Bucket::of(self.rule);
        let backlog = self.backlog(&bucket);
        if self.rule.algorithm == RuleAlgorithm::Pacing && taken > 0 {
            return ceiling(backlog - bucket.burst, bucket.denominator);
        }
        let needed = units.max(left + 1) * bucket.unit;
        match (left >= units, needed > bucket.full) {
            (true, true) => ceiling(backlog, bucket.denominator),
            (true, false) if backlog == 0 => 0,
            (false, true) => -1,
            _ => ceiling(needed - (bucket.full - backlog), bucket.denominator),
        }
    }
}

/// The length of a step of a sliding counter, and how many there are in a window.
fn steps(rule: &Rule) -> (i128, i128) {
    let step = rule.window_us.div_ceil(1 << 20);
    (step.into(), rule.window_us.div_ceil(step).into())
}

/// The first number up to `most` of which `is_true` is true, and of all after it.
fn first_of(most: i128, is_true: impl Fn(i128) -> bool) -> Option<i128> {
    if !is_true(most) {
        return None;
    }
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = (low + high) / 2;
        if is_true(middle) { high = middle } else { low = middle + 1 }
    }
    Some(low)
}
