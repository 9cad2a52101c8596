//! Every rule about the lives of workers and auxiliary processes, decided purely.
//!
//! [`Fleet::on`] takes what happened and the time and returns what to do; it knows no clock, socket or process.
//! The loop translates the world into [`Event`]s and [`Action`]s into system calls. What it remembers can be written down
//! and read back, so that a new supervisor goes on where the old one stopped.

mod event;
mod replace;
mod restart;
mod scale;
mod slot;
mod stop;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::event::Outcome;
pub(crate) use self::event::{Action, Event, Exit, Reason, ReloadFailure, Ticket, Unit};
use self::replace::{InHand, Reload};
use self::scale::Wait;
use self::slot::{Leaving, Life, Signs, Slot};
use crate::frame::DrainKind;
use crate::status::State;

/// When a process counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Readiness {
    /// When it says so.
    Said,
    /// When it says so, or when it has said nothing and lived for this long.
    SaidOrAlive(Duration),
}

/// The numbers the rules work with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Rules {
    /// As configured; how many are wanted now is the fleet's affair.
    pub(crate) workers: u32,
    pub(crate) worker_readiness: Readiness,
    /// Names and readiness, in the order of starting.
    pub(crate) processes: Vec<(String, Readiness)>,
    pub(crate) kill_timeout: Duration,
    pub(crate) ready_timeout: Duration,
    pub(crate) canary: Duration,
    pub(crate) hang_timeout: Duration,
    /// How long workers may be silent before they get no new connections; `None` when it is not known how often they speak.
    pub(crate) silence_tolerated: Option<Duration>,
    pub(crate) max_memory: Option<u64>,
    pub(crate) max_requests: Option<u64>,
    pub(crate) max_age: Option<Duration>,
}

/// All slots and auxiliary processes of one supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fleet {
    rules: Rules,
    /// For the jitter of waits and limits.
    #[serde(skip)]
    random: fastrand::Rng,
    /// What serves.
    generation: u32,
    /// The highest number ever given.
    newest_generation: u32,
    /// Slots below this number are to have a worker.
    wanted: u32,
    phase: Phase,
    workers: Vec<Slot>,
    processes: Vec<Slot>,
    steered: Vec<u32>,
    /// The one slot whose worker is being replaced.
    in_hand: Option<InHand>,
    reload: Option<Reload>,
    waits: Vec<Wait>,
    replaced: BTreeMap<Reason, u64>,
    announced: bool,
    any_was_ready: bool,
    hurried: bool,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// What a process is in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// It counts.
    Serving,
    /// It is to take the place of the one that counts.
    Succeeding,
    /// It was told to end.
    Leaving,
}

impl Fleet {
    pub(crate) fn new(rules: Rules, random: fastrand::Rng) -> Self {
        Self {
            random,
            generation: 1,
            newest_generation: 1,
            wanted: rules.workers,
            phase: Phase::Idle,
            workers: (0..rules.workers).map(|_| Slot::new(rules.worker_readiness, 1)).collect(),
            processes: rules.processes.iter().map(|(_, readiness)| Slot::new(*readiness, 1)).collect(),
            steered: (0..rules.workers).collect(),
            in_hand: None,
            reload: None,
            waits: Vec::new(),
            replaced: BTreeMap::new(),
            announced: false,
            any_was_ready: false,
            hurried: false,
            outcome: Outcome::Clean,
            rules,
        }
    }

    /// Takes note of `event` and of everything that has become due by `now`; returns what to do, in order.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take_note(event, now, &mut actions);
        self.do_what_is_due(now, &mut actions);
        self.advance(now, &mut actions);
        self.steer(now, &mut actions);
        actions
    }

    fn take_note(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::Start if self.phase == Phase::Idle => {
                self.phase = Phase::Preparing;
                self.processes.iter_mut().for_each(|slot| slot.start(now));
            }
            Event::Spawned { unit, pid } => self.spawned(unit, pid, now, actions),
            Event::SpawnFailed { unit, reason } => self.spawn_failed(unit, &reason, now, actions),
            Event::Spoke { pid } => self.with_signs(pid, |signs| signs.readiness = Readiness::Said),
            Event::Stopping { pid } => self.accepts_no_more(pid),
            Event::Beat { pid } => self.with_signs(pid, |signs| signs.last_beat = Some(now)),
            Event::Ready { pid } => match self.find(pid) {
                Some((unit, Part::Serving)) => self.ready(unit, now, actions),
                Some((Unit::Worker(slot), Part::Succeeding)) => self.successor_ready(slot, now, actions),
                _ => {}
            },
            Event::Usage { pid, rss_bytes, requests } => self.usage(pid, rss_bytes, requests, now, actions),
            Event::Exited { pid, exit } => match self.find(pid) {
                Some((unit, Part::Serving)) => self.life_ended(unit, exit, now, actions),
                Some((Unit::Worker(slot), Part::Succeeding)) => self.successor_ended(slot, exit, now, actions),
                Some((unit, _)) => self.left(unit, pid, exit, actions),
                None => {}
            },
            Event::Queue { slot, length } => self.retire_unless_waited_for(slot, length, now, actions),
            Event::Reload { ticket, rules } => self.begin_reload(ticket, *rules, now, actions),
            Event::Scale { ticket, scale } => self.scale(ticket, scale, now, actions),
            Event::Restart { ticket, slot, hard } => self.restart(ticket, slot, hard, now, actions),
            Event::Scheduled => self.replace_all(Reason::Cron, now),
            Event::Woke => self.forgive_silence(now),
            Event::Stop => self.stop(now, actions),
            Event::StopNow => self.stop_now(now, actions),
            Event::Start | Event::Tick => {}
        }
    }

    /// When [`Event::Tick`] is wanted, should nothing happen before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let units = self.all().filter_map(|unit| self.due_in_slot(unit));
        units.chain(self.in_hand.as_ref().and_then(|in_hand| in_hand.proven_at)).min()
    }

    fn due_in_slot(&self, unit: Unit) -> Option<Instant> {
        let slot = self.slot(unit);
        let leaving = slot.leaving.iter().filter(|leaving| !leaving.killed).map(|leaving| leaving.deadline);
        let life = slot.life.due(&slot.signs, &self.rules);
        let successor = slot.successor.as_ref().and_then(|next| next.life.due(&next.signs, &self.rules));
        let watched = self.watch_due(unit);
        let accepting =
            slot.leaving.iter().filter_map(|leaving| leaving.accepts_until.filter(|_| self.reload.is_some()));
        leaving.chain(accepting).chain(life).chain(successor).chain(watched).min()
    }

    /// Goes on to the next phase when this one has done what it is for.
    fn advance(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.phase == Phase::Preparing && self.processes.iter().all(|slot| slot.first_attempt_ended) {
            self.phase = Phase::Running;
            for slot in self.wanted_slots() {
                self.workers[slot as usize].start(now);
            }
            self.do_what_is_due(now, actions);
        }
        if self.phase == Phase::Running {
            self.look_at_workers(now, actions);
            self.go_on_replacing(now, actions);
        }
        self.go_on_ending(now, actions);
    }

    fn look_at_workers(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let mut wanted = self.workers.iter().take(self.wanted as usize);
        if !self.announced && wanted.clone().all(Slot::is_ready) {
            self.announced = true;
            actions.push(Action::AllReady);
        }
        if !self.any_was_ready && wanted.clone().all(|slot| matches!(slot.life, Life::Broken { .. })) {
            let all_refused = wanted.all(|slot| slot.life == Life::Broken { retry_at: None });
            self.outcome = if all_refused { Outcome::Misconfigured } else { Outcome::NeverReady };
            let why = if all_refused { "can run with this configuration" } else { "was ever ready" };
            actions.push(Action::Log(format!("no worker {why}")));
            self.stop(now, actions);
        }
    }

    fn do_what_is_due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for unit in self.all() {
            let slot = self.slot(unit);
            let life = slot.life;
            if life.due(&slot.signs, &self.rules).is_some_and(|due| due <= now) {
                self.live_on(unit, life, now, actions);
            }
            if let Unit::Worker(slot) = unit {
                self.successor_lives_on(slot, now, actions);
                self.watch(slot, now, actions);
            }
            self.kill_what_has_not_left(unit, now, actions);
        }
    }

    fn live_on(&mut self, unit: Unit, life: Life, now: Instant, actions: &mut Vec<Action>) {
        match life {
            Life::Waiting { .. } => self.spawn(unit, actions),
            Life::Broken { .. } => {
                self.slot_mut(unit).half_open = true;
                actions.push(Action::Log(format!("{} gets another chance", self.name(unit))));
                self.spawn(unit, actions);
            }
            Life::Starting { since, .. } if now < since + self.rules.ready_timeout => self.ready(unit, now, actions),
            Life::Starting { pid, since, .. } => {
                self.slot_mut(unit).life = Life::Starting { pid, since, condemned: true };
                actions.push(self.too_late(unit, pid));
                actions.push(Action::Kill { pid });
            }
            Life::Spawning | Life::Ready { .. } | Life::Stopped => {}
        }
    }

    fn too_late(&self, unit: Unit, pid: i32) -> Action {
        let (name, limit) = (self.name(unit), self.rules.ready_timeout);
        Action::Log(format!("{name} (pid {pid}) is not ready after {limit:.1?} and is killed"))
    }

    fn spawn(&mut self, unit: Unit, actions: &mut Vec<Action>) {
        let slot = self.slot_mut(unit);
        slot.life = Life::Spawning;
        actions.push(Action::Spawn { unit, generation: slot.generation });
    }

    fn spawned(&mut self, unit: Unit, pid: i32, now: Instant, actions: &mut Vec<Action>) {
        let spread = 0.85 + 0.3 * self.random.f64();
        self.slot_mut(unit).begin_life(pid, now, spread);
        if self.must_end(unit) {
            self.end_unit(unit, now, actions);
        }
    }

    fn ready(&mut self, unit: Unit, now: Instant, actions: &mut Vec<Action>) {
        let name = self.name(unit);
        let slot = self.slot_mut(unit);
        let Life::Starting { pid, since, condemned: false } = slot.life else { return };
        slot.become_ready(pid, now);
        let took = now.saturating_duration_since(since);
        actions.push(Action::Log(format!("{name} (pid {pid}) is ready after {took:.1?}")));
        if let Unit::Worker(slot) = unit {
            self.any_was_ready = true;
            if self.in_hand.as_ref().is_some_and(|in_hand| in_hand.slot == slot) {
                self.begin_proof(now);
            } else {
                self.settle(slot, actions);
            }
        }
    }
}

/// What others may know of it.
impl Fleet {
    /// Where the process that counts is in its life.
    pub(crate) fn state(&self, unit: Unit) -> State {
        self.slot(unit).state()
    }

    /// What process `pid` is, and in which state.
    pub(crate) fn part(&self, pid: i32) -> Option<(Part, State)> {
        let (unit, part) = self.find(pid)?;
        let slot = self.slot(unit);
        let state = match part {
            Part::Serving => slot.life.state(),
            Part::Succeeding => slot.successor.as_ref().map_or(State::Starting, |next| next.life.state()),
            Part::Leaving => State::Draining,
        };
        Some((part, state))
    }

    /// How often `unit` was restarted after it ended by itself.
    pub(crate) fn restarts(&self, unit: Unit) -> u64 {
        self.slot(unit).restarts
    }

    /// Why there is no ready process in `unit`.
    pub(crate) fn reason(&self, unit: Unit) -> Option<&str> {
        self.slot(unit).reason.as_deref()
    }

    /// What `unit` runs, or will when it is started again.
    pub(crate) fn generation_of(&self, unit: Unit) -> u32 {
        self.slot(unit).generation
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// The number that the next reload will give.
    pub(crate) fn next_generation(&self) -> u32 {
        self.newest_generation + 1
    }

    /// How many workers there should be.
    pub(crate) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Slots that were ever wanted.
    pub(crate) fn slots(&self) -> u32 {
        self.workers.len() as u32
    }

    /// The slots that get new connections.
    pub(crate) fn steered(&self) -> &[u32] {
        &self.steered
    }

    pub(crate) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Draining | Phase::Ending | Phase::Ended)
    }

    /// Whether all workers were ready at some moment.
    pub(crate) fn is_announced(&self) -> bool {
        self.announced
    }

    pub(crate) fn is_reloading(&self) -> bool {
        self.reload.is_some()
    }

    /// How often workers were replaced, by reason.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = (Reason, u64)> {
        self.replaced.iter().map(|(reason, count)| (*reason, *count))
    }

    /// What people call `unit`.
    pub(crate) fn name(&self, unit: Unit) -> String {
        match unit {
            Unit::Worker(id) => format!("w{id}"),
            Unit::Process(index) => self.rules.processes[index as usize].0.clone(),
        }
    }
}

/// Looking things up.
impl Fleet {
    fn find(&self, pid: i32) -> Option<(Unit, Part)> {
        self.all().find_map(|unit| {
            let slot = self.slot(unit);
            if slot.life.pid() == Some(pid) {
                Some((unit, Part::Serving))
            } else if slot.successor.as_ref().is_some_and(|next| next.life.pid() == Some(pid)) {
                Some((unit, Part::Succeeding))
            } else if slot.leaving.iter().any(|leaving| leaving.pid == pid) {
                Some((unit, Part::Leaving))
            } else {
                None
            }
        })
    }

    fn with_signs(&mut self, pid: i32, change: impl FnOnce(&mut Signs)) {
        let Some((unit, part)) = self.find(pid) else { return };
        let slot = self.slot_mut(unit);
        match (part, &mut slot.successor) {
            (Part::Serving, _) => change(&mut slot.signs),
            (Part::Succeeding, Some(next)) => change(&mut next.signs),
            _ => {}
        }
    }

    fn all(&self) -> impl Iterator<Item = Unit> + use<> {
        self.process_units().chain(self.worker_units())
    }

    fn worker_units(&self) -> impl Iterator<Item = Unit> + use<> {
        (0..self.slots()).map(Unit::Worker)
    }

    fn wanted_slots(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.wanted
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
