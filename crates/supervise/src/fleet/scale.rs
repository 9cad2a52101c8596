//! How many workers there are, restarts that somebody asked for, and who waits for the end of either.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::slot::Retiring;
use super::{Action, DrainKind, Fleet, Life, Phase, Reason, Slot, Ticket, Unit};
use crate::control::Scale;

/// A worker that is to go gets no new connections for this long before it is told so: those whose handshake had begun have
/// arrived then, a repeated SYN included.
const STEERED_AWAY_FOR: Duration = Duration::from_secs(1);

/// How often the queue of such a worker is looked at after that.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Somebody who waits until some slots have a new ready worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wait {
    ticket: Ticket,
    slots: Vec<u32>,
}

impl Fleet {
    pub(super) fn scale(&mut self, ticket: Option<Ticket>, scale: Scale, now: Instant, actions: &mut Vec<Action>) {
        let to = match scale {
            Scale::To(count) => count,
            Scale::By(difference) => self.wanted.saturating_add_signed(difference),
        };
        let to = to.max(1);
        if to != self.wanted {
            actions.push(Action::Log(format!("{to} workers are wanted in the place of {}", self.wanted)));
            actions.push(Action::TellNumber { count: to });
        }
        self.set_wanted(to, now, actions);
        let is_on_its_way = |slot: &u32| {
            let life = self.workers[*slot as usize].life;
            matches!(life, Life::Waiting { .. } | Life::Spawning | Life::Starting { .. })
        };
        let slots = self.wanted_slots().filter(is_on_its_way).collect();
        self.wait_for(ticket, slots, actions);
    }

    /// What the configuration says applies only if it says something new.
    pub(super) fn apply_configured_number(&mut self, before: u32, now: Instant, actions: &mut Vec<Action>) {
        if self.rules.workers != before {
            self.scale(None, Scale::To(self.rules.workers), now, actions);
        }
    }

    fn set_wanted(&mut self, wanted: u32, now: Instant, actions: &mut Vec<Action>) {
        let new = || Slot::new(self.rules.worker_readiness, self.generation);
        let missing = (wanted as usize).saturating_sub(self.workers.len());
        let new: Vec<_> = std::iter::repeat_with(new).take(missing).collect();
        self.workers.extend(new);
        self.wanted = wanted;
        for slot in 0..self.slots() {
            if slot < wanted { self.employ(slot, now) } else { self.retire(slot, now, actions) }
        }
    }

    fn employ(&mut self, slot: u32, now: Instant) {
        let (generation, is_running) = (self.generation, self.phase == Phase::Running);
        let place = &mut self.workers[slot as usize];
        place.retiring = None;
        if place.life == Life::Stopped && is_running {
            place.generation = generation;
            place.forget_failures();
            place.start(now);
        }
    }

    fn retire(&mut self, slot: u32, now: Instant, actions: &mut Vec<Action>) {
        self.drop_successor(slot, now, actions);
        self.forget_in_hand(slot);
        let message = format!("w{slot} is not wanted any more");
        self.fail_waits(slot, &message, actions);
        let latest = now + self.rules.kill_timeout;
        let place = &mut self.workers[slot as usize];
        place.reason = None;
        match place.life {
            Life::Ready { .. } if place.retiring.is_none() => {
                place.retiring = Some(Retiring { look_at: now + STEERED_AWAY_FOR, latest });
            }
            life @ Life::Starting { .. } => {
                place.life = Life::Stopped;
                self.dismiss(Unit::Worker(slot), life, DrainKind::Reload, now, actions);
            }
            Life::Waiting { .. } | Life::Broken { .. } => place.life = Life::Stopped,
            Life::Ready { .. } | Life::Spawning | Life::Stopped => {}
        }
    }

    pub(super) fn look_at_retiring(&mut self, slot: u32, now: Instant, actions: &mut Vec<Action>) {
        let Some(retiring) = &mut self.workers[slot as usize].retiring else { return };
        if retiring.look_at > now {
            return;
        }
        retiring.look_at = now + LOOK_AGAIN_AFTER;
        if now >= retiring.latest {
            self.retire_unless_waited_for(slot, 0, now, actions);
        } else {
            actions.push(Action::LookAtQueue { slot });
        }
    }

    pub(super) fn retire_unless_waited_for(&mut self, slot: u32, length: u32, now: Instant, actions: &mut Vec<Action>) {
        let Some(place) = self.workers.get_mut(slot as usize).filter(|place| place.retiring.is_some()) else { return };
        if length == 0 {
            place.retiring = None;
            let life = std::mem::replace(&mut place.life, Life::Stopped);
            self.dismiss(Unit::Worker(slot), life, DrainKind::Reload, now, actions);
        }
    }

    pub(super) fn is_not_wanted(&self, slot: u32) -> bool {
        slot >= self.wanted
    }

    /// A worker that was to go has gone by itself.
    pub(super) fn gone_unwanted(&mut self, slot: u32, tells: String, now: Instant, actions: &mut Vec<Action>) {
        let place = &mut self.workers[slot as usize];
        (place.retiring, place.vacant_since) = (None, None);
        place.adopt_at = Some(now);
        actions.push(Action::Log(format!("{tells}; it is not wanted any more")));
    }

    pub(super) fn restart(
        &mut self,
        ticket: Option<Ticket>,
        slot: Option<u32>,
        hard: bool,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        if let (Some(slot), Some(ticket)) = (slot.filter(|slot| *slot >= self.wanted), ticket) {
            actions.push(Action::Failed { ticket, message: format!("there is no worker w{slot}") });
            return;
        }
        let slots: Vec<u32> = slot.map_or_else(|| self.wanted_slots().collect(), |slot| vec![slot]);
        for &slot in &slots {
            if hard {
                self.restart_hard(slot, now, actions);
            } else {
                self.restart_softly(slot, now);
            }
        }
        self.wait_for(ticket, slots, actions);
    }

    fn restart_softly(&mut self, slot: u32, now: Instant) {
        let place = &mut self.workers[slot as usize];
        match place.life {
            Life::Waiting { .. } | Life::Broken { .. } => {
                place.forget_failures();
                place.start(now);
            }
            _ => self.want_replacement(slot, Reason::Restart, now),
        }
    }

    fn restart_hard(&mut self, slot: u32, now: Instant, actions: &mut Vec<Action>) {
        // Before that, nothing was started that could be started again.
        if self.phase != Phase::Running {
            return;
        }
        self.drop_successor(slot, now, actions);
        self.forget_in_hand(slot);
        let place = &mut self.workers[slot as usize];
        place.forget_failures();
        let before = place.life;
        if place.is_ready() {
            place.vacant_since = Some(now);
        }
        place.start(now);
        if let Some(pid) = before.pid() {
            self.expel(Unit::Worker(slot), pid, now, actions);
        }
        self.count(Unit::Worker(slot), Reason::Restart);
    }

    /// Has `ticket` wait until each of `slots` has a new ready worker.
    fn wait_for(&mut self, ticket: Option<Ticket>, slots: Vec<u32>, actions: &mut Vec<Action>) {
        let Some(ticket) = ticket else { return };
        if slots.is_empty() {
            actions.push(Action::Done { ticket });
        } else {
            self.waits.push(Wait { ticket, slots });
        }
    }

    /// `slot` has a new ready worker.
    pub(super) fn settle(&mut self, slot: u32, actions: &mut Vec<Action>) {
        for wait in &mut self.waits {
            wait.slots.retain(|waited| *waited != slot);
        }
        let done = self.waits.extract_if(.., |wait| wait.slots.is_empty());
        actions.extend(done.map(|wait| Action::Done { ticket: wait.ticket }));
    }

    /// `slot` will not have a new ready worker soon.
    pub(super) fn fail_waits(&mut self, slot: u32, message: &str, actions: &mut Vec<Action>) {
        let failed = self.waits.extract_if(.., |wait| wait.slots.contains(&slot));
        actions.extend(failed.map(|wait| Action::Failed { ticket: wait.ticket, message: message.to_owned() }));
    }

    /// Nobody will get what they wait for.
    pub(super) fn fail_all_waits(&mut self, message: &str, actions: &mut Vec<Action>) {
        let failed = self.waits.drain(..);
        actions.extend(failed.map(|wait| Action::Failed { ticket: wait.ticket, message: message.to_owned() }));
    }
}
