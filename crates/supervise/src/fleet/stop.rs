//! Telling processes to end, one or all of them, and killing those that do not.

use std::time::{Duration, Instant};

use super::{Action, DrainKind, Exit, Fleet, Leaving, Life, Outcome, Phase, Readiness, Slot, Unit};

/// A reload waits so long at most for a worker of the old generation to close its listeners.
const ACCEPTS_AT_MOST: Duration = Duration::from_secs(1);

/// What processes get to end when everything is to end at once.
pub(super) const HURRIED_KILL_TIMEOUT: Duration = Duration::from_secs(1);

impl Fleet {
    pub(super) fn stop(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        self.phase = Phase::Draining;
        self.in_hand = None;
        self.abandon_reload(actions);
        self.fail_all_waits("the supervisor ends", actions);
        // First, so that each worker holds the last descriptor of its shard: it takes what is queued and closes it at once, and a
        // client that comes later is refused. Were ours still open, that client would queue for nobody and be reset in the end.
        actions.push(Action::CloseListeners);
        for unit in self.worker_units() {
            self.end_unit(unit, now, actions);
        }
    }

    pub(super) fn stop_now(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.hurried = true;
        self.stop(now, actions);
        for slot in &mut self.workers {
            for leaving in slot.leaving.iter_mut().filter(|leaving| !leaving.killed) {
                leaving.killed = true;
                actions.push(Action::Kill { pid: leaving.pid });
            }
        }
        for leaving in self.processes.iter_mut().flat_map(|slot| &mut slot.leaving) {
            leaving.deadline = leaving.deadline.min(now + HURRIED_KILL_TIMEOUT);
        }
    }

    /// Tells all processes of `unit` to end, and makes sure that none is started.
    pub(super) fn end_unit(&mut self, unit: Unit, now: Instant, actions: &mut Vec<Action>) {
        let before: Vec<i32> = self.slot(unit).leaving.iter().map(|leaving| leaving.pid).collect();
        // Those that drain for a reload have more time than a stop gives them.
        actions.extend(before.into_iter().map(|pid| Action::Drain { pid, kind: DrainKind::Stop }));
        if let Some(next) = self.slot_mut(unit).successor.take() {
            self.dismiss(unit, next.life, DrainKind::Stop, now, actions);
        }
        let slot = self.slot_mut(unit);
        slot.retiring = None;
        let life = slot.life;
        // A process that is just being started is told to end as soon as it has a process id.
        if !matches!(life, Life::Spawning | Life::Broken { .. }) {
            slot.life = Life::Stopped;
        }
        if let Life::Broken { retry_at } = &mut slot.life {
            *retry_at = None;
        }
        self.dismiss(unit, life, DrainKind::Stop, now, actions);
    }

    /// Tells the process of a life, if it has one, to finish and end. The life is somebody else's or over by then.
    pub(super) fn dismiss(&mut self, unit: Unit, life: Life, kind: DrainKind, now: Instant, actions: &mut Vec<Action>) {
        let Some(pid) = life.pid() else { return };
        let patience =
            if self.hurried { HURRIED_KILL_TIMEOUT.min(self.rules.kill_timeout) } else { self.rules.kill_timeout };
        let was_ready = matches!(life, Life::Ready { .. });
        let killed = matches!(life, Life::Starting { condemned: true, .. });
        let says_when_it_stops =
            was_ready && kind == DrainKind::Reload && self.slot(unit).signs.readiness == Readiness::Said;
        let accepts_until = says_when_it_stops.then(|| now + ACCEPTS_AT_MOST);
        self.slot_mut(unit).leaving.push(Leaving { pid, deadline: now + patience, killed, was_ready, accepts_until });
        actions.push(Action::Drain { pid, kind });
    }

    /// A process that was told to end says that it accepts no more.
    pub(super) fn accepts_no_more(&mut self, pid: i32) {
        let leaving = self.workers.iter_mut().flat_map(|slot| &mut slot.leaving);
        leaving.filter(|leaving| leaving.pid == pid).for_each(|leaving| leaving.accepts_until = None);
    }

    /// Whether a worker that was told to end may still accept connections.
    pub(super) fn still_accepts(&mut self, now: Instant) -> bool {
        let mut leaving = self.workers.iter_mut().flat_map(|slot| &mut slot.leaving);
        leaving.any(|leaving| {
            leaving.accepts_until.take_if(|until| *until <= now);
            leaving.accepts_until.is_some()
        })
    }

    /// Kills one process.
    pub(super) fn expel(&mut self, unit: Unit, pid: i32, now: Instant, actions: &mut Vec<Action>) {
        let leaving = Leaving { pid, deadline: now, killed: true, was_ready: false, accepts_until: None };
        self.slot_mut(unit).leaving.push(leaving);
        actions.push(Action::Kill { pid });
    }

    /// Drops the successor in `slot`, if there is one; it has no clients yet.
    pub(super) fn drop_successor(&mut self, slot: u32, now: Instant, actions: &mut Vec<Action>) {
        if let Some(next) = self.workers[slot as usize].successor.take() {
            self.dismiss(Unit::Worker(slot), next.life, DrainKind::Reload, now, actions);
        }
    }

    pub(super) fn kill_what_has_not_left(&mut self, unit: Unit, now: Instant, actions: &mut Vec<Action>) {
        let late = |leaving: &&mut Leaving| !leaving.killed && leaving.deadline <= now;
        let mut killed = Vec::new();
        for leaving in self.slot_mut(unit).leaving.iter_mut().filter(late) {
            leaving.killed = true;
            killed.push(leaving.pid);
        }
        for pid in killed {
            let name = self.name(unit);
            actions.push(Action::Log(format!("{name} (pid {pid}) has not ended in time and is killed")));
            actions.push(Action::Kill { pid });
        }
    }

    /// A process that was told to end has ended.
    pub(super) fn left(&mut self, unit: Unit, pid: i32, exit: Exit, actions: &mut Vec<Action>) {
        let name = self.name(unit);
        let slot = self.slot_mut(unit);
        let gone = slot.leaving.iter().position(|leaving| leaving.pid == pid).map(|index| slot.leaving.remove(index));
        let was_ready = gone.is_some_and(|leaving| leaving.was_ready);
        if self.is_stopping() && was_ready && !exit.is_clean_end() && matches!(unit, Unit::Worker(_)) {
            self.outcome = Outcome::Cut;
        }
        actions.push(Action::Log(format!("{name} (pid {pid}) {exit}")));
    }

    /// Takes the next step of a stop once the one before has been done.
    pub(super) fn go_on_ending(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.phase == Phase::Draining && self.workers.iter().all(Slot::has_no_process) {
            self.phase = Phase::Ending;
            for unit in self.process_units() {
                self.end_unit(unit, now, actions);
            }
        }
        if self.phase == Phase::Ending && self.processes.iter().all(Slot::has_no_process) {
            self.phase = Phase::Ended;
            actions.push(Action::End(self.outcome));
        }
    }

    pub(super) fn must_end(&self, unit: Unit) -> bool {
        match unit {
            Unit::Worker(_) => self.is_stopping(),
            Unit::Process(_) => matches!(self.phase, Phase::Ending | Phase::Ended),
        }
    }
}
