//! Whether workers that serve are well: silence, memory, age. And which slots get new connections because of it.

use std::time::{Duration, Instant};

use super::restart::SETTLED_AFTER;
use super::slot::Successor;
use super::{Action, Exit, Fleet, Leaving, Life, Part, Phase, Reason, Unit};

/// A slot whose worker ended keeps its connections for this long, which is enough for a healthy replacement.
pub(super) const VACANCY_TOLERATED: Duration = Duration::from_millis(250);

/// How often the shard of a slot that gets no connections is looked at for some that came late.
const ADOPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a hung worker gets to tell where it was stuck.
pub(super) const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

impl Fleet {
    /// When [`Fleet::watch`] or [`Fleet::steer`] has something to do about `unit`.
    pub(super) fn watch_due(&self, unit: Unit) -> Option<Instant> {
        let Unit::Worker(id) = unit else { return None };
        if self.phase != Phase::Running {
            return None;
        }
        let slot = self.slot(unit);
        let vacancy = slot.vacant_since.map(|since| since + VACANCY_TOLERATED);
        let retiring = slot.retiring.map(|retiring| retiring.look_at);
        let replacement = self.replacement_due(id).filter(|_| self.in_hand.is_none());
        let beat = slot.signs.last_beat.filter(|_| slot.is_ready());
        let hang = beat.map(|beat| beat + self.rules.hang_timeout);
        let silence = beat.zip(self.rules.silence_tolerated).map(|(beat, tolerated)| beat + tolerated);
        let silence = silence.filter(|_| !slot.is_silent);
        let age = self.too_old_at(id);
        let successor = slot.successor.as_ref().and_then(|next| next.signs.last_beat);
        let successor = successor.map(|beat| beat + self.rules.hang_timeout);
        [vacancy, slot.adopt_at, retiring, replacement, hang, silence, age, successor].into_iter().flatten().min()
    }

    /// Replaces a worker that hangs or is too old, and goes on retiring one that is not wanted.
    pub(super) fn watch(&mut self, slot: u32, now: Instant, actions: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        self.look_at_retiring(slot, now, actions);
        let place = &self.workers[slot as usize];
        if place.is_ready() && place.signs.is_silent(self.rules.hang_timeout, now) {
            self.replace_hung(slot, now, actions);
        }
        let hangs = |next: &Successor| next.signs.is_silent(self.rules.hang_timeout, now);
        if self.workers[slot as usize].successor.as_ref().is_some_and(hangs) {
            self.drop_hung_successor(slot, now, actions);
        }
        if self.too_old_at(slot).is_some_and(|due| due <= now) {
            self.want_replacement(slot, Reason::Age, now);
        }
    }

    fn too_old_at(&self, slot: u32) -> Option<Instant> {
        let place = &self.workers[slot as usize];
        let Life::Ready { since, .. } = place.life else { return None };
        let max_age = self.rules.max_age?.mul_f64(place.signs.spread);
        let may_be_replaced = place.replacement.is_none() && slot < self.wanted && self.reload.is_none();
        may_be_replaced.then(|| since + max_age)
    }

    /// A process is told to say where it is stuck and to die; returns what that is told by.
    fn abort(&mut self, slot: u32, pid: i32, now: Instant, actions: &mut Vec<Action>) -> String {
        let (name, silence) = (self.name(Unit::Worker(slot)), self.rules.hang_timeout);
        let tells = format!("{name} (pid {pid}) has not been heard of for {silence:.1?}");
        let deadline = now + ABORT_TIMEOUT;
        self.workers[slot as usize].leaving.push(Leaving {
            pid,
            deadline,
            killed: false,
            was_ready: false,
            accepts_until: None,
        });
        actions.push(Action::Log(format!("{tells} and is aborted")));
        actions.push(Action::Abort { pid });
        tells
    }

    fn drop_hung_successor(&mut self, slot: u32, now: Instant, actions: &mut Vec<Action>) {
        let Some(pid) = self.workers[slot as usize].successor.take().and_then(|next| next.life.pid()) else { return };
        let tells = self.abort(slot, pid, now, actions);
        self.succession_failed(slot, &tells, Some(pid), Exit::Signal(nix::libc::SIGABRT), now, actions);
    }

    /// The worker is aborted, and its successor is started at once.
    fn replace_hung(&mut self, slot: u32, now: Instant, actions: &mut Vec<Action>) {
        let place = &mut self.workers[slot as usize];
        let Life::Ready { pid, since } = place.life else { return };
        place.life = Life::Stopped;
        let tells = self.abort(slot, pid, now, actions);
        if self.is_not_wanted(slot) {
            self.gone_unwanted(slot, tells, now, actions);
            return;
        }
        self.count(Unit::Worker(slot), Reason::Hang);
        if self.successor_steps_in(slot, &tells, actions) || self.fails_reload(slot, &tells, Some(pid), now, actions) {
            return;
        }
        self.forget_in_hand(slot);
        let settled = now.saturating_duration_since(since) >= SETTLED_AFTER;
        self.fail_at_once(slot, &tells, !settled, now, actions);
    }

    /// What a worker uses may be too much.
    pub(super) fn usage(
        &mut self,
        pid: i32,
        rss_bytes: Option<u64>,
        requests: Option<u64>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some((Unit::Worker(slot), Part::Serving)) = self.find(pid) else { return };
        let place = &self.workers[slot as usize];
        let spread = place.signs.spread;
        let too_big = rss_bytes.zip(self.rules.max_memory).filter(|(used, limit)| used > limit);
        let served = |limit: u64| (limit as f64 * spread) as u64;
        let too_many = requests.zip(self.rules.max_requests).filter(|(count, limit)| *count >= served(*limit));
        if place.replacement.is_some() || slot >= self.wanted || self.reload.is_some() || self.in_hand_is(slot) {
            return;
        }
        let name = self.name(Unit::Worker(slot));
        if let Some((used, limit)) = too_big {
            let (used, limit) = (used >> 20, limit >> 20);
            actions.push(Action::Log(format!("{name} (pid {pid}) uses {used} of {limit} MiB and is replaced")));
            self.want_replacement(slot, Reason::Memory, self.not_too_soon(slot, now));
        } else if let Some((count, _)) = too_many {
            actions.push(Action::Log(format!("{name} (pid {pid}) has answered {count} requests and is replaced")));
            self.want_replacement(slot, Reason::Requests, self.not_too_soon(slot, now));
        }
    }

    /// A worker that is too big as soon as it is ready would otherwise be replaced without a pause.
    fn not_too_soon(&self, slot: u32, now: Instant) -> Instant {
        const REPLACED_AT_MOST_EVERY: Duration = Duration::from_secs(1);
        match self.workers[slot as usize].life {
            Life::Ready { since, .. } => now.max(since + REPLACED_AT_MOST_EVERY),
            _ => now,
        }
    }

    fn in_hand_is(&self, slot: u32) -> bool {
        self.in_hand.as_ref().is_some_and(|in_hand| in_hand.slot == slot)
    }

    pub(super) fn forgive_silence(&mut self, now: Instant) {
        for slot in &mut self.workers {
            let successor = slot.successor.as_mut().map(|next| &mut next.signs);
            for signs in successor.into_iter().chain([&mut slot.signs]) {
                signs.last_beat = signs.last_beat.map(|_| now);
            }
        }
    }

    /// Names the slots that may get new connections: those that are ready and heard of, or were a moment ago; all if there is
    /// none. What waits at the shards of the others is given to a sibling.
    pub(super) fn steer(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        let silence_tolerated = self.rules.silence_tolerated;
        let mut any_well = false;
        let mut chosen = Vec::new();
        for (id, slot) in (0..).zip(&mut self.workers) {
            if slot.vacant_since.is_some_and(|since| now >= since + VACANCY_TOLERATED || slot.life.is_broken()) {
                slot.vacant_since = None;
            }
            let silent = slot.is_ready() && silence_tolerated.is_some_and(|time| slot.signs.is_silent(time, now));
            if silent && !slot.is_silent {
                actions.push(Action::Log(format!("w{id} is silent and gets no new connections")));
            }
            slot.is_silent = silent;
            let well = slot.is_ready() && !silent && id < self.wanted;
            any_well |= well;
            if well || (slot.vacant_since.is_some() && id < self.wanted) {
                chosen.push(id);
            }
        }
        if !any_well {
            chosen = self.wanted_slots().collect();
        }
        self.have_adopted(&chosen, any_well, now, actions);
        if chosen != self.steered {
            self.steered.clone_from(&chosen);
            actions.push(Action::Steer(chosen));
        }
    }

    /// Has a sibling take what waits at the shard of a slot that is not among `chosen`, which ascend: at once if its worker is gone, after a
    /// while if it is silent, and again every second, because connections may have been on their way.
    fn have_adopted(&mut self, chosen: &[u32], any_well: bool, now: Instant, actions: &mut Vec<Action>) {
        for (id, slot) in (0..).zip(&mut self.workers) {
            let is_wanted = id < self.wanted;
            if chosen.binary_search(&id).is_ok() || !any_well || slot.retiring.is_some() {
                slot.adopt_at = None;
                continue;
            }
            if is_wanted && slot.adopt_at.is_none() {
                slot.adopt_at = Some(if slot.is_silent { now + ADOPT_AGAIN_AFTER } else { now });
            }
            if slot.adopt_at.is_some_and(|at| at <= now) {
                slot.adopt_at = (is_wanted || slot.is_silent).then(|| now + ADOPT_AGAIN_AFTER);
                actions.push(Action::Adopt { slot: id });
            }
        }
    }
}
