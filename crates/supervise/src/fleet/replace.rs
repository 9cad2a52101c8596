//! Replacing workers that serve: the successor first, one slot at a time. A reload is that for all slots, with a way back.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::restart::{FAILURES_TOLERATED, NOT_TO_BE_RESPAWNED};
use super::slot::{Replacement, Successor};
use super::{Action, DrainKind, Exit, Fleet, Life, Reason, ReloadFailure, Rules, Signs, Ticket, Unit};

/// The slot whose worker is being replaced.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct InHand {
    pub(super) slot: u32,
    pub(super) reason: Reason,
    /// Once the new worker is ready: when it has shown that it can be trusted.
    #[serde(with = "crate::handover::moment::option")]
    pub(super) proven_at: Option<Instant>,
}

/// A reload under way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reload {
    ticket: Option<Ticket>,
    from: u32,
    to: u32,
    /// What was in force before.
    previous_rules: Rules,
    /// The first worker of the new generation has shown that it can be trusted.
    canary_is_proven: bool,
    /// Everything goes back.
    failure: Option<ReloadFailure>,
}

impl Reload {
    /// The generation that slots are brought to.
    fn target(&self) -> u32 {
        if self.failure.is_some() { self.from } else { self.to }
    }
}

impl Fleet {
    pub(super) fn begin_reload(
        &mut self,
        ticket: Option<Ticket>,
        rules: Rules,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        self.newest_generation += 1;
        let (from, to) = (self.generation, self.newest_generation);
        // A reload is for the workers: the processes beside them are those of the start.
        let rules = Rules { processes: self.rules.processes.clone(), ..rules };
        let previous_rules = std::mem::replace(&mut self.rules, rules);
        self.apply_readiness();
        // Whatever is being replaced will be replaced by the new generation.
        if let Some(in_hand) = self.in_hand.take() {
            self.drop_successor(in_hand.slot, now, actions);
        }
        for slot in self.wanted_slots() {
            self.workers[slot as usize].replacement = Some(Replacement::new(Reason::Reload, now));
        }
        self.reload = Some(Reload { ticket, from, to, previous_rules, canary_is_proven: false, failure: None });
        actions.push(Action::Log(format!("reload: generation {to} takes the place of generation {from}")));
    }

    fn apply_readiness(&mut self) {
        let readiness = self.rules.worker_readiness;
        self.workers.iter_mut().for_each(|slot| slot.readiness_of_next_process(readiness));
    }

    /// Wishes that the worker in `slot` be replaced. A reload does that anyway.
    pub(super) fn want_replacement(&mut self, slot: u32, reason: Reason, not_before: Instant) {
        let place = &mut self.workers[slot as usize];
        if place.replacement.is_none() && place.is_ready() && slot < self.wanted && self.reload.is_none() {
            place.replacement = Some(Replacement::new(reason, not_before));
        }
    }

    pub(super) fn replace_all(&mut self, reason: Reason, now: Instant) {
        for slot in self.wanted_slots() {
            self.want_replacement(slot, reason, now);
        }
    }

    /// Takes the next step of whatever is to be replaced.
    pub(super) fn go_on_replacing(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.end_proof(now, actions);
        let still_accepts = self.still_accepts(now);
        if self.in_hand.is_some() {
            return;
        }
        // A process that was only just asked for has to be known first.
        let is_known = |slot: &u32| self.workers[*slot as usize].life != Life::Spawning;
        let is_due = |slot: &u32| self.replacement_due(*slot).is_some_and(|due| due <= now);
        let next = self.wanted_slots().find(|slot| is_known(slot) && is_due(slot));
        if let Some(slot) = next {
            self.begin_replacement(slot, now, actions);
            return;
        }
        let is_over = self.workers.iter().all(|slot| slot.replacement.is_none());
        if is_over && self.reload.is_some() && !still_accepts {
            self.end_reload(now, actions);
        }
    }

    /// When the worker in `slot` is to be replaced.
    pub(super) fn replacement_due(&self, slot: u32) -> Option<Instant> {
        self.workers[slot as usize].replacement.map(|wish| wish.not_before)
    }

    fn begin_replacement(&mut self, slot: u32, now: Instant, actions: &mut Vec<Action>) {
        let unit = Unit::Worker(slot);
        let generation = self.reload.as_ref().map_or(self.workers[slot as usize].generation, Reload::target);
        let place = &mut self.workers[slot as usize];
        let reason = place.replacement.map_or(Reason::Reload, |wish| wish.reason);
        self.in_hand = Some(InHand { slot, reason, proven_at: None });
        match place.life {
            Life::Ready { .. } => {
                let signs = Signs::new(place.signs.readiness, 1.0);
                place.successor = Some(Successor { life: Life::Spawning, generation, signs });
                actions.push(Action::Spawn { unit, generation });
                return;
            }
            life => self.dismiss(unit, life, DrainKind::Reload, now, actions),
        }
        let place = &mut self.workers[slot as usize];
        place.generation = generation;
        place.replacement = None;
        place.forget_failures();
        self.spawn(unit, actions);
    }

    pub(super) fn successor_lives_on(&mut self, slot: u32, now: Instant, actions: &mut Vec<Action>) {
        let Some(next) = &mut self.workers[slot as usize].successor else { return };
        if next.life.due(&next.signs, &self.rules).is_none_or(|due| due > now) {
            return;
        }
        match next.life {
            Life::Starting { since, .. } if now < since + self.rules.ready_timeout => {
                self.successor_ready(slot, now, actions);
            }
            Life::Starting { pid, since, .. } => {
                next.life = Life::Starting { pid, since, condemned: true };
                actions.push(self.too_late(Unit::Worker(slot), pid));
                actions.push(Action::Kill { pid });
            }
            _ => {}
        }
    }

    pub(super) fn successor_ready(&mut self, slot: u32, now: Instant, actions: &mut Vec<Action>) {
        let name = self.name(Unit::Worker(slot));
        let Some(next) = &mut self.workers[slot as usize].successor else { return };
        let Life::Starting { pid, since, condemned: false } = next.life else { return };
        next.life = Life::Ready { pid, since: now };
        let took = now.saturating_duration_since(since);
        let generation = next.generation;
        actions.push(Action::Log(format!("{name} (pid {pid}) of generation {generation} is ready after {took:.1?}")));
        self.begin_proof(now);
    }

    /// The new worker in hand is ready. The first one of a reload has to stay so for a while.
    pub(super) fn begin_proof(&mut self, now: Instant) {
        let is_canary = self.reload.as_ref().is_some_and(|reload| !reload.canary_is_proven && reload.failure.is_none());
        let proven_at = if is_canary { now + self.rules.canary } else { now };
        if let Some(in_hand) = &mut self.in_hand {
            in_hand.proven_at = Some(proven_at);
        }
    }

    fn end_proof(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let is_proven = |in_hand: &mut InHand| in_hand.proven_at.is_some_and(|at| at <= now);
        let Some(InHand { slot, reason, .. }) = self.in_hand.take_if(is_proven) else { return };
        if let Some(reload) = &mut self.reload {
            reload.canary_is_proven = true;
        }
        self.count(Unit::Worker(slot), reason);
        self.take_over(slot, now, actions);
        self.settle(slot, actions);
    }

    /// The successor serves from now on, and the one before it ends.
    fn take_over(&mut self, slot: u32, now: Instant, actions: &mut Vec<Action>) {
        let place = &mut self.workers[slot as usize];
        place.replacement = None;
        let Some(next) = place.successor.take() else { return };
        let before = std::mem::replace(&mut place.life, next.life);
        (place.generation, place.signs, place.reason) = (next.generation, next.signs, None);
        place.is_silent = false;
        self.dismiss(Unit::Worker(slot), before, DrainKind::Reload, now, actions);
    }

    /// A successor has ended before it could take over.
    pub(super) fn successor_ended(&mut self, slot: u32, exit: Exit, now: Instant, actions: &mut Vec<Action>) {
        let name = self.name(Unit::Worker(slot));
        let Some(next) = self.workers[slot as usize].successor.take() else { return };
        let Some(pid) = next.life.pid() else { return };
        let what = match next.life {
            Life::Starting { condemned: true, .. } => format!("was not ready within {:.1?}", self.rules.ready_timeout),
            Life::Starting { .. } => format!("{exit} before it was ready"),
            _ => format!("{exit} right after it was ready"),
        };
        let tells = format!("{name} (pid {pid}) of generation {} {what}", next.generation);
        self.succession_failed(slot, &tells, Some(pid), exit, now, actions);
    }

    /// A successor could not even be started; false if none was asked for.
    pub(super) fn cannot_succeed(&mut self, slot: u32, tells: &str, now: Instant, actions: &mut Vec<Action>) -> bool {
        if self.workers[slot as usize].successor.take().is_none() {
            self.workers[slot as usize].life = Life::Stopped;
            return self.fails_reload(slot, tells, None, now, actions);
        }
        self.succession_failed(slot, tells, None, Exit::Code(1), now, actions);
        true
    }

    pub(super) fn succession_failed(
        &mut self,
        slot: u32,
        tells: &str,
        pid: Option<i32>,
        exit: Exit,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let in_hand = self.in_hand.take();
        if self.reload.as_ref().is_some_and(|reload| reload.failure.is_none()) {
            self.roll_back(tells, pid, now, actions);
            return;
        }
        self.fail_waits(slot, tells, actions);
        let failed = self.workers[slot as usize].replacement.map_or(0, |wish| wish.failed) + 1;
        let refused = exit == Exit::Code(NOT_TO_BE_RESPAWNED);
        if self.reload.is_some() && (refused || failed >= FAILURES_TOLERATED) {
            self.stay_on_the_way_back(slot, tells, actions);
            return;
        }
        if refused {
            self.workers[slot as usize].replacement = None;
            actions.push(Action::Log(format!("{tells}, so the worker before it stays")));
            return;
        }
        let wait = self.restart_wait(Unit::Worker(slot), true);
        let reason = in_hand.map_or(Reason::Reload, |in_hand| in_hand.reason);
        self.workers[slot as usize].replacement = Some(Replacement { reason, not_before: now + wait, failed });
        actions.push(Action::Log(format!("{tells}; the worker before it stays, trying again in {wait:.1?}")));
    }

    /// The old generation cannot start any more, perhaps because of what the new one has done. The worker of the new one in `slot` serves,
    /// so it stays; whoever waits for the end of the reload must not wait for ever.
    fn stay_on_the_way_back(&mut self, slot: u32, tells: &str, actions: &mut Vec<Action>) {
        let Some(Reload { from, to, failure: Some(failure), .. }) = &mut self.reload else { return };
        let message = format!("{tells}, so the worker of generation {to} stays");
        failure.message.push_str("; ");
        failure.message.push_str(&message);
        let place = &mut self.workers[slot as usize];
        // What will be started in its place one day.
        (place.replacement, place.generation) = (None, *from);
        actions.push(Action::Log(message));
    }

    /// The worker that served has ended while its successor was on the way, which now counts; false without one.
    pub(super) fn successor_steps_in(&mut self, slot: u32, tells: &str, actions: &mut Vec<Action>) -> bool {
        let place = &mut self.workers[slot as usize];
        let Some(next) = place.successor.take() else { return false };
        if matches!(next.life, Life::Ready { .. }) {
            place.vacant_since = None;
        }
        (place.life, place.generation, place.signs) = (next.life, next.generation, next.signs);
        actions.push(Action::Log(format!("{tells}; its successor is on the way")));
        self.count(Unit::Worker(slot), Reason::Crash);
        true
    }

    /// A worker of the new generation that counted has ended: everything goes back. False if it was of the old one.
    pub(super) fn fails_reload(
        &mut self,
        slot: u32,
        tells: &str,
        pid: Option<i32>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> bool {
        if !self.is_new(slot) {
            return false;
        }
        if self.reload.as_ref().is_some_and(|reload| reload.failure.is_none()) {
            self.roll_back(tells, pid, now, actions);
        } else {
            self.in_hand.take_if(|in_hand| in_hand.slot == slot);
        }
        true
    }

    /// Whether `slot` has the generation that a reload has brought or tried to bring.
    fn is_new(&self, slot: u32) -> bool {
        self.reload.as_ref().is_some_and(|reload| reload.to == self.workers[slot as usize].generation)
    }

    /// The new generation is no good: the way leads back, and the slots that have it already are replaced again.
    fn roll_back(&mut self, tells: &str, pid: Option<i32>, now: Instant, actions: &mut Vec<Action>) {
        self.give_up_in_hand(now, actions);
        // Restarts asked for before were to be part of it.
        self.fail_all_waits("a reload came in between and failed", actions);
        let Some(reload) = &mut self.reload else { return };
        let (from, to) = (reload.from, reload.to);
        reload.failure = Some(ReloadFailure { message: tells.to_owned(), pid });
        self.rules = reload.previous_rules.clone();
        self.apply_readiness();
        let wish = Replacement::new(Reason::Reload, now);
        for slot in &mut self.workers {
            slot.replacement = (slot.generation == to).then_some(wish);
        }
        actions.push(Action::Log(format!("{tells}: the reload goes back to generation {from}")));
    }

    /// Kills the successor in hand, if there is one.
    pub(super) fn give_up_in_hand(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(in_hand) = self.in_hand.take() else { return };
        let Some(next) = self.workers[in_hand.slot as usize].successor.take() else { return };
        if let Some(pid) = next.life.pid() {
            self.expel(Unit::Worker(in_hand.slot), pid, now, actions);
        }
    }

    /// A worker that was to be replaced has ended by itself.
    pub(super) fn forget_in_hand(&mut self, slot: u32) {
        self.in_hand.take_if(|in_hand| in_hand.slot == slot);
        if self.reload.is_none() {
            self.workers[slot as usize].replacement = None;
        }
    }

    fn end_reload(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(reload) = self.reload.take() else { return };
        if reload.failure.is_none() {
            self.generation = reload.to;
            self.apply_configured_number(reload.previous_rules.workers, now, actions);
            actions.push(Action::Log(format!("reload: generation {} serves alone", self.generation)));
        }
        actions.push(Action::ReloadEnded { ticket: reload.ticket, failure: reload.failure });
    }

    /// The reload is given up because everything ends.
    pub(super) fn abandon_reload(&mut self, actions: &mut Vec<Action>) {
        if let Some(reload) = self.reload.take() {
            let message = "the supervisor ends".to_owned();
            let failure = Some(ReloadFailure { message, pid: None });
            actions.push(Action::ReloadEnded { ticket: reload.ticket, failure });
        }
    }
}
