//! What follows when a process has ended by itself: a restart after a wait, or a breaker that keeps it down.

use std::time::{Duration, Instant};

use resilience::Backoff;

use super::{Action, Exit, Fleet, Life, Reason, Unit};

/// Exit code of a program that must not be started again.
pub(super) const NOT_TO_BE_RESPAWNED: i32 = 78;

/// A worker that stays ready for this long has come through; a later exit begins a new count of failures.
pub(super) const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// So many failures within [`FAILURES_WITHIN`] open a slot's breaker.
pub(super) const FAILURES_TOLERATED: usize = 5;
pub(super) const FAILURES_WITHIN: Duration = Duration::from_secs(60);

/// An open breaker lets an attempt through after this.
pub(super) const HALF_OPEN_AFTER: Duration = Duration::from_secs(30);

pub(super) const RESTART: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(30), jitter: 0.2 };

impl Fleet {
    /// The process that counted has ended.
    pub(super) fn life_ended(&mut self, unit: Unit, exit: Exit, now: Instant, actions: &mut Vec<Action>) {
        let name = self.name(unit);
        let slot = self.slot_mut(unit);
        slot.first_attempt_ended = true;
        let ended = std::mem::replace(&mut slot.life, Life::Stopped);
        let Some(pid) = ended.pid() else { return };
        let ready_for = match ended {
            Life::Ready { since, .. } => Some(now.saturating_duration_since(since)),
            _ => None,
        };
        if ready_for.is_some() {
            slot.vacant_since = Some(now);
        }
        let what = match ended {
            Life::Starting { condemned: true, .. } => format!("was not ready within {:.1?}", self.rules.ready_timeout),
            Life::Starting { .. } => format!("{exit} before it was ready"),
            _ => exit.to_string(),
        };
        let tells = format!("{name} (pid {pid}) {what}");
        if let Unit::Worker(slot) = unit {
            if self.is_not_wanted(slot) {
                self.gone_unwanted(slot, tells, now, actions);
                return;
            }
            if self.successor_steps_in(slot, &tells, actions)
                || self.fails_reload(slot, &tells, Some(pid), now, actions)
            {
                return;
            }
            self.forget_in_hand(slot);
        }
        self.fail(unit, &tells, ready_for, exit, now, actions);
    }

    /// `unit` has no process any more and nobody else takes its place.
    fn fail(
        &mut self,
        unit: Unit,
        tells: &str,
        ready_for: Option<Duration>,
        exit: Exit,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        self.slot_mut(unit).reason = Some(tells.to_owned());
        if let Unit::Worker(slot) = unit {
            self.fail_waits(slot, tells, actions);
        }
        if exit == Exit::Code(NOT_TO_BE_RESPAWNED) {
            self.slot_mut(unit).life = Life::Broken { retry_at: None };
            actions.push(Action::Log(format!("{tells}, so it is not started again")));
            return;
        }
        self.count(unit, Reason::Crash);
        let settled = ready_for.is_some_and(|time| time >= SETTLED_AFTER);
        if settled {
            self.slot_mut(unit).forget_failures();
        }
        // A ready process that is killed from outside did nothing wrong, however often somebody does it.
        let killed_by_somebody = ready_for.is_some() && exit == Exit::Signal(nix::libc::SIGKILL);
        let counts = !settled && !killed_by_somebody;
        if counts && self.breaks(unit, now) {
            actions.push(rests(tells));
            return;
        }
        let wait = self.restart_wait(unit, counts);
        self.slot_mut(unit).life = Life::Waiting { until: now + wait };
        actions.push(Action::Log(format!("{tells}; starting it again in {wait:.1?}")));
    }

    /// The worker in `slot` was given up while others still wait for it; the next one is started without a pause.
    pub(super) fn fail_at_once(
        &mut self,
        slot: u32,
        tells: &str,
        counts: bool,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let unit = Unit::Worker(slot);
        self.slot_mut(unit).reason = Some(tells.to_owned());
        self.fail_waits(slot, tells, actions);
        if counts && self.breaks(unit, now) {
            actions.push(rests(tells));
        } else {
            self.spawn(unit, actions);
        }
    }

    /// Takes note of a failure that counts; true if the slot's breaker is open now.
    fn breaks(&mut self, unit: Unit, now: Instant) -> bool {
        let slot = self.slot_mut(unit);
        slot.failed_at.push_back(now);
        while slot.failed_at.front().is_some_and(|at| now.saturating_duration_since(*at) > FAILURES_WITHIN) {
            slot.failed_at.pop_front();
        }
        let open = slot.half_open || slot.failed_at.len() >= FAILURES_TOLERATED;
        if open {
            slot.half_open = false;
            slot.life = Life::Broken { retry_at: Some(now + HALF_OPEN_AFTER) };
        }
        open
    }

    /// How long to wait before `unit` is started again. A failure that counts doubles the wait of the one before.
    pub(super) fn restart_wait(&mut self, unit: Unit, counts: bool) -> Duration {
        let random = self.random.f64();
        let slot = self.slot_mut(unit);
        slot.first_attempt_ended = true;
        if counts {
            slot.failures = slot.failures.saturating_add(1);
            RESTART.delay(slot.failures, random)
        } else {
            RESTART.delay(1, random)
        }
    }

    pub(super) fn spawn_failed(&mut self, unit: Unit, reason: &str, now: Instant, actions: &mut Vec<Action>) {
        if self.must_end(unit) {
            self.slot_mut(unit).life = Life::Stopped;
            return;
        }
        let tells = format!("{} cannot be started: {reason}", self.name(unit));
        if let Unit::Worker(slot) = unit
            && self.cannot_succeed(slot, &tells, now, actions)
        {
            return;
        }
        let wait = self.restart_wait(unit, true);
        let slot = self.slot_mut(unit);
        slot.life = Life::Waiting { until: now + wait };
        slot.reason = Some(tells.clone());
        actions.push(Action::Log(format!("{tells}; trying again in {wait:.1?}")));
    }

    /// One more worker was, or is about to be, replaced for `reason`.
    pub(super) fn count(&mut self, unit: Unit, reason: Reason) {
        if matches!(reason, Reason::Crash | Reason::Hang) {
            self.slot_mut(unit).restarts += 1;
        }
        if matches!(unit, Unit::Worker(_)) {
            *self.replaced.entry(reason).or_default() += 1;
        }
    }
}

fn rests(tells: &str) -> Action {
    Action::Log(format!("{tells}; it has failed too often and rests for {HALF_OPEN_AFTER:.1?}"))
}
