//! Every rule about the lives of workers and auxiliary processes, decided purely.
//!
//! [`Fleet::on`] takes what happened and the time and returns what to do; it knows no clock, socket or process.
//! The loop translates the world into [`Event`]s and [`Action`]s into system calls.

mod event;
mod slot;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use resilience::Backoff;

pub use self::event::Outcome;
pub(crate) use self::event::{Action, Event, Exit, Unit};
use self::slot::{Life, Slot};
use crate::status::State;

/// Exit code of a program that must not be started again.
const NOT_TO_BE_RESPAWNED: i32 = 78;

/// A worker that stays ready for this long has come through; a later exit begins a new count of failures.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// A slot whose worker ended keeps its connections for this long, which is enough for a healthy replacement.
const VACANCY_TOLERATED: Duration = Duration::from_millis(250);

/// What auxiliary processes get to end when everything is to end at once.
const HURRIED_KILL_TIMEOUT: Duration = Duration::from_secs(1);

const RESTART: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(30), jitter: 0.2 };

/// When a process counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// When it says so.
    Said,
    /// When it says so, or when it has said nothing and lived for this long.
    SaidOrAlive(Duration),
}

/// The numbers the rules work with.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) workers: u32,
    pub(crate) worker_readiness: Readiness,
    /// Names, in the order of starting.
    pub(crate) processes: Vec<String>,
    pub(crate) kill_timeout: Duration,
    pub(crate) ready_timeout: Duration,
    /// For the jitter of the restart waits.
    pub(crate) seed: u64,
}

/// All slots and auxiliary processes of one supervisor.
#[derive(Debug)]
pub(crate) struct Fleet {
    rules: Rules,
    random: fastrand::Rng,
    generation: u32,
    phase: Phase,
    workers: Vec<Slot>,
    processes: Vec<Slot>,
    steered: Vec<u32>,
    announced: bool,
    hurried: bool,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Auxiliary processes are being started; workers wait for their first attempt to end, either way.
    Preparing,
    Running,
    /// Workers are ending.
    Draining,
    /// Workers have ended, auxiliary processes are ending.
    Ending,
    Ended,
}

impl Fleet {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            random: fastrand::Rng::with_seed(rules.seed),
            generation: 1,
            phase: Phase::Idle,
            workers: (0..rules.workers).map(|_| Slot::new(rules.worker_readiness)).collect(),
            processes: rules.processes.iter().map(|_| Slot::new(Readiness::Said)).collect(),
            steered: (0..rules.workers).collect(),
            announced: false,
            hurried: false,
            outcome: Outcome::Clean,
            rules,
        }
    }

    /// Takes note of `event` and of everything that has become due by `now`; returns what to do, in order.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Start if self.phase == Phase::Idle => {
                self.phase = Phase::Preparing;
                self.processes.iter_mut().for_each(|slot| slot.start(now));
            }
            Event::Spawned { unit, pid } => self.spawned(unit, pid, now, &mut actions),
            Event::SpawnFailed { unit, reason } => self.spawn_failed(unit, &reason, now, &mut actions),
            Event::Spoke { pid } => {
                if let Some(slot) = self.find(pid).map(|unit| self.slot_mut(unit)) {
                    slot.readiness = Readiness::Said;
                }
            }
            Event::Ready { pid } => {
                if let Some(unit) = self.find(pid) {
                    self.ready(unit, now, &mut actions);
                }
            }
            Event::Exited { pid, exit } => {
                if let Some(unit) = self.find(pid) {
                    self.exited(unit, exit, now, &mut actions);
                }
            }
            Event::Stop => self.stop(now, &mut actions),
            Event::StopNow => self.stop_now(now, &mut actions),
            Event::Start | Event::Tick => {}
        }
        self.do_what_is_due(now, &mut actions);
        self.advance(now, &mut actions);
        self.steer(now, &mut actions);
        actions
    }

    /// When [`Event::Tick`] is wanted, should nothing happen before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let due = self.all().filter_map(|unit| self.slot(unit).due(&self.rules));
        let vacancies = self.workers.iter().filter_map(|slot| slot.vacant_since.map(|since| since + VACANCY_TOLERATED));
        due.chain(vacancies.filter(|_| !self.is_stopping())).min()
    }

    /// Where `unit` is in its life.
    pub(crate) fn state(&self, unit: Unit) -> State {
        self.slot(unit).state()
    }

    /// How often `unit` was restarted after it ended by itself.
    pub(crate) fn restarts(&self, unit: Unit) -> u64 {
        self.slot(unit).restarts
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Draining | Phase::Ending | Phase::Ended)
    }

    /// What people call `unit`.
    pub(crate) fn name(&self, unit: Unit) -> String {
        match unit {
            Unit::Worker(id) => format!("w{id}"),
            Unit::Process(index) => self.rules.processes[index as usize].clone(),
        }
    }

    fn spawned(&mut self, unit: Unit, pid: i32, now: Instant, actions: &mut Vec<Action>) {
        let slot = self.slot_mut(unit);
        slot.begin_life(pid, now);
        if self.must_end(unit) {
            self.drain(unit, now, actions);
        }
    }

    fn spawn_failed(&mut self, unit: Unit, reason: &str, now: Instant, actions: &mut Vec<Action>) {
        if self.must_end(unit) {
            self.slot_mut(unit).life = Life::Stopped;
            return;
        }
        let wait = self.restart_wait(unit, true);
        let name = self.name(unit);
        self.slot_mut(unit).life = Life::Waiting { until: now + wait };
        actions.push(Action::Log(format!("{name} cannot be started: {reason}; trying again in {wait:.1?}")));
    }

    fn ready(&mut self, unit: Unit, now: Instant, actions: &mut Vec<Action>) {
        let name = self.name(unit);
        let slot = self.slot_mut(unit);
        let Life::Starting { pid, since, condemned: false } = slot.life else { return };
        slot.become_ready(pid, now);
        let took = now.saturating_duration_since(since);
        actions.push(Action::Log(format!("{name} (pid {pid}) is ready after {took:.1?}")));
    }

    fn exited(&mut self, unit: Unit, exit: Exit, now: Instant, actions: &mut Vec<Action>) {
        let name = self.name(unit);
        let slot = self.slot_mut(unit);
        slot.first_attempt_ended = true;
        let ended = std::mem::replace(&mut slot.life, Life::Stopped);
        let Some(pid) = ended.pid() else { return };
        if let Life::Draining { was_ready, .. } = ended {
            let cut = was_ready && !exit.is_clean_end() && matches!(unit, Unit::Worker(_));
            if cut {
                self.outcome = Outcome::Cut;
            }
            actions.push(Action::Log(format!("{name} (pid {pid}) {exit}")));
            return;
        }
        let ready_for = match ended {
            Life::Ready { since, .. } => {
                slot.vacant_since = Some(now);
                Some(now.saturating_duration_since(since))
            }
            _ => None,
        };
        if exit == Exit::Code(NOT_TO_BE_RESPAWNED) {
            slot.life = Life::Broken;
            actions.push(Action::Log(format!("{name} (pid {pid}) {exit}, so it is not started again")));
            return;
        }
        slot.restarts += 1;
        let settled = ready_for.is_some_and(|time| time >= SETTLED_AFTER);
        if settled {
            slot.failures = 0;
        }
        // A ready process that is killed from outside did nothing wrong, however often somebody does it.
        let killed_by_somebody = ready_for.is_some() && exit == Exit::Signal(nix::libc::SIGKILL);
        let wait = self.restart_wait(unit, !settled && !killed_by_somebody);
        self.slot_mut(unit).life = Life::Waiting { until: now + wait };
        let before_ready = if ready_for.is_none() { " before it was ready" } else { "" };
        actions.push(Action::Log(format!("{name} (pid {pid}) {exit}{before_ready}; starting it again in {wait:.1?}")));
    }

    /// How long to wait before `unit` is started again. A failure that counts doubles the wait of the one before.
    fn restart_wait(&mut self, unit: Unit, counts: bool) -> Duration {
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

    fn stop(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        self.phase = Phase::Draining;
        // First, so that each worker holds the last descriptor of its shard: it takes what is queued and closes it at once, and a
        // client that comes later is refused. Were ours still open, that client would queue for nobody and be reset in the end.
        actions.push(Action::CloseListeners);
        for unit in self.worker_units() {
            self.drain(unit, now, actions);
        }
    }

    fn stop_now(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.hurried = true;
        self.stop(now, actions);
        for unit in self.worker_units() {
            self.kill(unit, actions);
        }
        for slot in &mut self.processes {
            if let Life::Draining { deadline, .. } = &mut slot.life {
                *deadline = (*deadline).min(now + HURRIED_KILL_TIMEOUT);
            }
        }
    }

    /// Tells the process of `unit` to end, or makes sure that none is started.
    fn drain(&mut self, unit: Unit, now: Instant, actions: &mut Vec<Action>) {
        let patience =
            if self.hurried { HURRIED_KILL_TIMEOUT.min(self.rules.kill_timeout) } else { self.rules.kill_timeout };
        let slot = self.slot_mut(unit);
        match slot.life {
            Life::Starting { pid, condemned, .. } => {
                slot.life = Life::Draining { pid, deadline: now + patience, killed: condemned, was_ready: false };
                actions.push(Action::Drain { pid });
            }
            Life::Ready { pid, .. } => {
                slot.life = Life::Draining { pid, deadline: now + patience, killed: false, was_ready: true };
                actions.push(Action::Drain { pid });
            }
            Life::Waiting { .. } => slot.life = Life::Stopped,
            // A process that is just being started is drained as soon as it has a process id.
            Life::Spawning | Life::Draining { .. } | Life::Broken | Life::Stopped => {}
        }
    }

    fn kill(&mut self, unit: Unit, actions: &mut Vec<Action>) {
        match &mut self.slot_mut(unit).life {
            Life::Starting { pid, condemned: killed, .. } | Life::Draining { pid, killed, .. } if !*killed => {
                *killed = true;
                actions.push(Action::Kill { pid: *pid });
            }
            _ => {}
        }
    }

    fn do_what_is_due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for unit in self.all() {
            if self.slot(unit).due(&self.rules).is_none_or(|due| due > now) {
                continue;
            }
            let name = self.name(unit);
            match self.slot(unit).life {
                Life::Waiting { .. } => self.spawn(unit, actions),
                Life::Starting { since, .. } if now < since + self.rules.ready_timeout => {
                    self.ready(unit, now, actions);
                }
                Life::Starting { pid, .. } => {
                    let limit = self.rules.ready_timeout;
                    actions
                        .push(Action::Log(format!("{name} (pid {pid}) is not ready after {limit:.1?} and is killed")));
                    self.kill(unit, actions);
                }
                Life::Draining { pid, .. } => {
                    actions.push(Action::Log(format!("{name} (pid {pid}) has not ended in time and is killed")));
                    self.kill(unit, actions);
                }
                Life::Spawning | Life::Ready { .. } | Life::Broken | Life::Stopped => {}
            }
        }
    }

    fn spawn(&mut self, unit: Unit, actions: &mut Vec<Action>) {
        self.slot_mut(unit).life = Life::Spawning;
        actions.push(Action::Spawn { unit, generation: self.generation });
    }

    /// Goes on to the next phase when this one has done what it is for.
    fn advance(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.phase == Phase::Preparing && self.processes.iter().all(|slot| slot.first_attempt_ended) {
            self.phase = Phase::Running;
            self.workers.iter_mut().for_each(|slot| slot.start(now));
            self.do_what_is_due(now, actions);
        }
        if self.phase == Phase::Running {
            self.look_at_workers(now, actions);
        }
        if self.phase == Phase::Draining && self.workers.iter().all(Slot::has_no_process) {
            self.phase = Phase::Ending;
            for unit in self.process_units() {
                self.drain(unit, now, actions);
            }
        }
        if self.phase == Phase::Ending && self.processes.iter().all(Slot::has_no_process) {
            self.phase = Phase::Ended;
            actions.push(Action::End(self.outcome));
        }
    }

    fn look_at_workers(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.announced && self.workers.iter().all(|slot| matches!(slot.life, Life::Ready { .. })) {
            self.announced = true;
            actions.push(Action::AllReady);
        }
        let never_any = self.workers.iter().all(|slot| matches!(slot.life, Life::Broken) && !slot.was_ever_ready());
        if never_any {
            self.outcome = Outcome::Misconfigured;
            actions.push(Action::Log("no worker can run with this configuration".to_owned()));
            self.stop(now, actions);
        }
    }

    /// Names the slots that may get new connections: those that are ready or were a moment ago; all if none is ready.
    fn steer(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        let mut any_ready = false;
        let mut chosen = Vec::new();
        for (id, slot) in (0..).zip(&mut self.workers) {
            if slot
                .vacant_since
                .is_some_and(|since| now >= since + VACANCY_TOLERATED || matches!(slot.life, Life::Broken))
            {
                slot.vacant_since = None;
            }
            let ready = matches!(slot.life, Life::Ready { .. });
            any_ready |= ready;
            if ready || slot.vacant_since.is_some() {
                chosen.push(id);
            }
        }
        if !any_ready {
            chosen = (0..self.rules.workers).collect();
        }
        if chosen != self.steered {
            self.steered.clone_from(&chosen);
            actions.push(Action::Steer(chosen));
        }
    }

    fn must_end(&self, unit: Unit) -> bool {
        match unit {
            Unit::Worker(_) => self.is_stopping(),
            Unit::Process(_) => matches!(self.phase, Phase::Ending | Phase::Ended),
        }
    }

    fn find(&self, pid: i32) -> Option<Unit> {
        self.all().find(|&unit| self.slot(unit).life.pid() == Some(pid))
    }

    fn all(&self) -> impl Iterator<Item = Unit> + use<> {
        self.process_units().chain(self.worker_units())
    }

    fn worker_units(&self) -> impl Iterator<Item = Unit> + use<> {
        (0..self.rules.workers).map(Unit::Worker)
    }

    fn process_units(&self) -> impl Iterator<Item = Unit> + use<> {
        (0..self.processes.len() as u32).map(Unit::Process)
    }

    fn slot(&self, unit: Unit) -> &Slot {
        match unit {
            Unit::Worker(id) => &self.workers[id as usize],
            Unit::Process(index) => &self.processes[index as usize],
        }
    }

    fn slot_mut(&mut self, unit: Unit) -> &mut Slot {
        match unit {
            Unit::Worker(id) => &mut self.workers[id as usize],
            Unit::Process(index) => &mut self.processes[index as usize],
        }
    }
}
