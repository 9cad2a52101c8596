//! The rules by table and by property, with a clock that only the test moves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::restart::{HALF_OPEN_AFTER, SETTLED_AFTER};
use super::*;
use crate::control::Scale;

mod breaker;
mod chaos;
mod lifecycle;
mod reload;
mod scale;
mod stop;
mod watch;

const KILL: Exit = Exit::Signal(9);
const CRASH: Exit = Exit::Signal(11);

fn rules(workers: u32, processes: &[&str]) -> Rules {
    Rules {
        workers,
        worker_readiness: Readiness::Said,
        processes: processes.iter().map(|name| ((*name).to_owned(), Readiness::Said)).collect(),
        kill_timeout: Duration::from_secs(30),
        ready_timeout: Duration::from_secs(30),
        canary: Duration::from_secs(2),
        hang_timeout: Duration::from_secs(10),
        silence_tolerated: Some(milliseconds(1500)),
        max_memory: None,
        max_requests: None,
        max_age: None,
    }
}

fn fleet(rules: Rules) -> Fleet {
    Fleet::new(rules, fastrand::Rng::with_seed(7))
}

/// A fleet in a world that carries out every action at once and remembers it.
struct World {
    fleet: Fleet,
    now: Instant,
    next_pid: i32,
    /// Units and generations by process id.
    running: BTreeMap<i32, (Unit, u32)>,
    spawned: Vec<(Unit, Instant)>,
    drained: Vec<i32>,
    killed: Vec<i32>,
    aborted: Vec<i32>,
    adopted: Vec<u32>,
    /// How many connections wait at every shard.
    queued: u32,
    /// Tickets with what became of them.
    answers: Vec<(Ticket, Result<(), String>)>,
    reloads_ended: Vec<Option<ReloadFailure>>,
    steered: Vec<Vec<u32>>,
    all_ready: u32,
    /// Of workers, as they were told.
    told_number: Vec<u32>,
    listeners_closed: bool,
    /// Whether workers that are told to end say at once that they accept no more.
    close_listeners_at_once: bool,
    outcome: Option<Outcome>,
    log: Vec<String>,
}

impl World {
    fn new(rules: Rules) -> Self {
        Self {
            fleet: fleet(rules),
            now: Instant::now(),
            next_pid: 100,
            running: BTreeMap::new(),
            spawned: Vec::new(),
            drained: Vec::new(),
            killed: Vec::new(),
            aborted: Vec::new(),
            adopted: Vec::new(),
            queued: 0,
            answers: Vec::new(),
            reloads_ended: Vec::new(),
            steered: Vec::new(),
            all_ready: 0,
            told_number: Vec::new(),
            listeners_closed: false,
            close_listeners_at_once: true,
            outcome: None,
            log: Vec::new(),
        }
    }

    /// Started, with everything ready.
    fn ready(rules: Rules) -> Self {
        let mut world = Self::new(rules);
        world.happen(Event::Start);
        world.say_ready();
        world.say_ready();
        world
    }

    fn happen(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.fleet.on(event, self.now) {
                self.act(action, &mut events);
            }
        }
    }

    fn act(&mut self, action: Action, events: &mut Vec<Event>) {
        match action {
            Action::Spawn { unit, generation } => {
                let before = self.running.values().filter(|(running, _)| *running == unit).count();
                let leaving = self.drained.iter().chain(&self.killed).chain(&self.aborted);
                let leaving: std::collections::BTreeSet<_> =
                    leaving.filter(|pid| self.running.get(pid).is_some_and(|(running, _)| *running == unit)).collect();
                assert!(before <= leaving.len() + 1, "three processes for {unit:?}");
                self.next_pid += 1;
                self.running.insert(self.next_pid, (unit, generation));
                self.spawned.push((unit, self.now));
                events.push(Event::Spawned { unit, pid: self.next_pid });
            }
            Action::Drain { pid, .. } => {
                assert!(self.running.contains_key(&pid));
                self.assert_somebody_serves_beside(pid);
                self.drained.push(pid);
                if self.close_listeners_at_once {
                    events.push(Event::Stopping { pid });
                }
            }
            Action::Abort { pid } => {
                assert!(self.running.contains_key(&pid));
                self.aborted.push(pid);
            }
            Action::LookAtQueue { slot } => events.push(Event::Queue { slot, length: self.queued }),
            Action::Adopt { slot } => self.adopted.push(slot),
            Action::Done { ticket } => self.answers.push((ticket, Ok(()))),
            Action::Failed { ticket, message } => self.answers.push((ticket, Err(message))),
            Action::ReloadEnded { failure, .. } => self.reloads_ended.push(failure),
            Action::Kill { pid } => {
                assert!(self.running.contains_key(&pid));
                self.killed.push(pid);
            }
            Action::Steer(slots) => {
                assert!(!slots.is_empty(), "connections would go nowhere");
                self.steered.push(slots);
            }
            Action::TellNumber { count } => self.told_number.push(count),
            Action::AllReady => self.all_ready += 1,
            Action::CloseListeners => self.listeners_closed = true,
            Action::Log(text) => self.log.push(text),
            Action::End(outcome) => {
                assert!(self.running.is_empty(), "something still runs");
                assert_eq!(self.outcome.replace(outcome), None, "ended twice");
            }
        }
    }

    fn pid_of(&self, unit: Unit) -> Option<i32> {
        let is_serving = |pid: &i32| matches!(self.fleet.part(*pid), Some((Part::Serving, _)));
        let mut running = self.running.iter().filter(|(_, (candidate, _))| *candidate == unit);
        running.find(|(pid, _)| is_serving(pid)).map(|(pid, _)| *pid)
    }

    /// The only process of `unit`, whatever it was told.
    fn only(&self, unit: Unit) -> i32 {
        let pids: Vec<_> = self.running.iter().filter(|(_, (running, _))| *running == unit).collect();
        assert_eq!(pids.len(), 1, "{:?}", self.running);
        *pids[0].0
    }

    fn worker(&self, slot: u32) -> i32 {
        self.pid_of(Unit::Worker(slot)).expect("the slot has a worker")
    }

    /// Everything that runs says that it is ready.
    fn say_ready(&mut self) {
        for pid in self.running.keys().copied().collect::<Vec<_>>() {
            self.happen(Event::Ready { pid });
        }
    }

    fn exit(&mut self, pid: i32, exit: Exit) {
        self.running.remove(&pid);
        self.happen(Event::Exited { pid, exit });
    }

    /// Lets time go by, waking the fleet whenever it wants to be.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut ticks_at_once = 0;
        while let Some(due) = self.fleet.next_deadline().filter(|due| *due <= end) {
            ticks_at_once = if due > self.now { 0 } else { ticks_at_once + 1 };
            assert!(ticks_at_once < 10, "a busy loop: {:?}", self.fleet);
            self.now = self.now.max(due);
            self.happen(Event::Tick);
        }
        self.now = end;
    }

    /// Everything that runs shows that it is not stuck.
    fn beat(&mut self) {
        for pid in self.running.keys().copied().collect::<Vec<_>>() {
            self.happen(Event::Beat { pid });
        }
    }

    /// Of all workers together.
    fn restarts(&self) -> u64 {
        (0..self.fleet.slots()).map(|slot| self.fleet.restarts(Unit::Worker(slot))).sum()
    }

    /// A reload or a restart must not take the last ready worker from a slot that is wanted.
    fn assert_somebody_serves_beside(&self, pid: i32) {
        let (Unit::Worker(slot), _) = self.running[&pid] else { return };
        let place = &self.fleet.workers[slot as usize];
        let was_ready = place.leaving.iter().any(|leaving| leaving.pid == pid && leaving.was_ready);
        if was_ready && !self.drained.contains(&pid) && slot < self.fleet.wanted && !self.fleet.is_stopping() {
            assert!(place.is_ready(), "w{slot} has lost its ready worker");
        }
    }

    /// How long it takes until the unit is started again; the time passes.
    fn time_to_restart(&mut self, unit: Unit) -> Duration {
        let before = self.now;
        while self.pid_of(unit).is_none() {
            let due = self.fleet.next_deadline().expect("a restart is due");
            self.pass(due - self.now);
        }
        self.now - before
    }
}

fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Whether `wait` is `nominal` but for the jitter.
fn is_about(wait: Duration, nominal: Duration) -> bool {
    wait >= nominal.mul_f64(0.8) && wait <= nominal.mul_f64(1.2)
}

#[test]
fn workers_wait_for_the_first_attempt_of_each_process() {
    let mut world = World::new(rules(2, &["redis"]));
    world.happen(Event::Start);
    assert_eq!(world.running.values().copied().collect::<Vec<_>>(), [(Unit::Process(0), 1)]);
    world.say_ready();
    assert_eq!(world.running.len(), 3);
}

#[test]
fn workers_start_even_if_a_process_fails_at_once() {
    let mut world = World::new(rules(1, &["redis"]));
    world.happen(Event::Start);
    let redis = world.pid_of(Unit::Process(0)).unwrap();
    world.exit(redis, Exit::Code(1));
    assert!(world.pid_of(Unit::Worker(0)).is_some());
    assert_eq!(world.fleet.state(Unit::Process(0)), State::Backoff);
}

#[test]
fn everything_is_announced_ready_once() {
    let mut world = World::new(rules(2, &[]));
    world.happen(Event::Start);
    world.happen(Event::Ready { pid: world.worker(0) });
    assert_eq!(world.all_ready, 0);
    world.happen(Event::Ready { pid: world.worker(1) });
    assert_eq!(world.all_ready, 1);
    world.exit(world.worker(0), CRASH);
    world.pass(milliseconds(200));
    world.say_ready();
    assert_eq!(world.all_ready, 1);
}

#[test]
fn exits_before_ready_double_the_wait_up_to_thirty_seconds() {
    let mut world = World::new(rules(1, &[]));
    world.happen(Event::Start);
    for nominal in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
        // So seldom that the breaker has nothing to say.
        world.pass(Duration::from_secs(16));
        world.exit(world.worker(0), Exit::Code(1));
        let wait = world.time_to_restart(Unit::Worker(0));
        assert!(is_about(wait, milliseconds(nominal)), "{wait:?} is not about {nominal} ms");
    }
}

#[test]
fn what_an_exit_does_to_the_next_wait() {
    let table = [
        // (ready for, exit, waits after the first, second and third exit of that kind)
        (milliseconds(10), CRASH, [100, 200, 400]),
        (milliseconds(9_900), Exit::Code(1), [100, 200, 400]),
        (milliseconds(9_900), Exit::OutOfMemory, [100, 200, 400]),
        (milliseconds(10_000), CRASH, [100, 100, 100]),
        (milliseconds(10), KILL, [100, 100, 100]),
        (milliseconds(6_000), KILL, [100, 100, 100]),
    ];
    for (ready_for, exit, waits) in table {
        let mut world = World::ready(rules(1, &[]));
        for nominal in waits {
            world.pass(ready_for);
            world.exit(world.worker(0), exit);
            let wait = world.time_to_restart(Unit::Worker(0));
            assert!(
                is_about(wait, milliseconds(nominal)),
                "{exit:?} after {ready_for:?}: {wait:?} is not about {nominal} ms"
            );
            world.say_ready();
        }
    }
}

#[test]
fn a_worker_killed_before_it_is_ready_counts_as_failed() {
    let mut world = World::new(rules(1, &[]));
    world.happen(Event::Start);
    world.exit(world.worker(0), KILL);
    world.pass(milliseconds(120));
    world.exit(world.worker(0), KILL);
    assert!(is_about(world.time_to_restart(Unit::Worker(0)), milliseconds(200)));
}

#[test]
fn a_worker_that_says_78_is_not_started_again_and_its_siblings_live() {
    let mut world = World::ready(rules(2, &[]));
    world.exit(world.worker(1), Exit::Code(78));
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.fleet.state(Unit::Worker(1)), State::Broken);
    assert_eq!(world.fleet.state(Unit::Worker(0)), State::Ready);
    assert_eq!(world.steered.last(), Some(&vec![0]));
    assert_eq!(world.outcome, None);
}

#[test]
fn the_supervisor_gives_up_with_78_when_every_worker_says_so_at_once() {
    let mut world = World::ready(rules(2, &["redis"]));
    let mut world_without_ready = World::new(rules(2, &["redis"]));
    world_without_ready.happen(Event::Start);
    world_without_ready.say_ready();
    for world in [&mut world, &mut world_without_ready] {
        for slot in 0..2 {
            world.exit(world.worker(slot), Exit::Code(78));
        }
    }
    assert!(world.drained.is_empty(), "it served once, so it stays to say what is wrong");
    let redis = world_without_ready.only(Unit::Process(0));
    assert_eq!(world_without_ready.drained, [redis]);
    world_without_ready.exit(redis, Exit::Code(0));
    assert_eq!(world_without_ready.outcome, Some(Outcome::Misconfigured));
}

#[test]
fn a_worker_that_is_never_ready_is_killed_and_tried_again() {
    let mut world = World::new(rules(1, &[]));
    world.happen(Event::Start);
    let first = world.worker(0);
    world.pass(milliseconds(29_999));
    assert!(world.killed.is_empty());
    world.pass(milliseconds(1));
    assert_eq!(world.killed, [first]);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.killed, [first], "once is enough");
    world.exit(first, KILL);
    world.pass(milliseconds(120));
    assert_ne!(world.worker(0), first);
}

#[test]
fn a_silent_foreign_program_is_ready_after_its_minimum_uptime_and_a_talking_one_when_it_says_so() {
    let mut world =
        World::new(Rules { worker_readiness: Readiness::SaidOrAlive(Duration::from_secs(1)), ..rules(2, &[]) });
    world.happen(Event::Start);
    world.happen(Event::Spoke { pid: world.worker(1) });
    world.pass(milliseconds(999));
    assert_eq!(world.fleet.state(Unit::Worker(0)), State::Starting);
    world.pass(milliseconds(2));
    assert_eq!(world.fleet.state(Unit::Worker(0)), State::Ready);
    assert_eq!(world.fleet.state(Unit::Worker(1)), State::Starting);
    world.happen(Event::Ready { pid: world.worker(1) });
    assert_eq!(world.fleet.state(Unit::Worker(1)), State::Ready);
}

#[test]
fn connections_go_to_ready_slots_and_leave_a_vacant_one_after_250_ms() {
    let mut world = World::new(rules(3, &[]));
    world.happen(Event::Start);
    assert!(world.steered.is_empty(), "nobody is ready, so all are named, as from the beginning");
    world.happen(Event::Ready { pid: world.worker(1) });
    assert_eq!(world.steered.last(), Some(&vec![1]));
    world.say_ready();
    assert_eq!(world.steered.last(), Some(&vec![0, 1, 2]));

    let changes = world.steered.len();
    world.exit(world.worker(0), CRASH);
    world.pass(milliseconds(249));
    assert_eq!(world.steered.len(), changes, "a quick replacement needs no change");
    world.pass(milliseconds(2));
    assert_eq!(world.steered.last(), Some(&vec![1, 2]));
    world.say_ready();
    assert_eq!(world.steered.last(), Some(&vec![0, 1, 2]));
}

#[test]
fn all_slots_are_named_when_every_worker_is_gone() {
    let mut world = World::ready(rules(2, &[]));
    for slot in 0..2 {
        world.exit(world.worker(slot), KILL);
    }
    world.pass(milliseconds(400));
    assert_eq!(world.steered.last(), Some(&vec![0, 1]));
    world.happen(Event::Ready { pid: world.worker(1) });
    assert_eq!(world.steered.last(), Some(&vec![1]));
}

#[test]
fn the_death_of_a_stranger_changes_nothing() {
    let mut world = World::ready(rules(2, &["redis"]));
    let before = format!("{:?}", world.fleet);
    for exit in [Exit::Code(78), Exit::Code(0), KILL] {
        world.happen(Event::Exited { pid: 1, exit });
    }
    assert_eq!(format!("{:?}", world.fleet), before);
}

#[test]
fn a_failed_start_is_tried_again_with_growing_waits() {
    let mut fleet = fleet(rules(1, &[]));
    let mut now = Instant::now();
    let unit = Unit::Worker(0);
    let spawn = [Action::Spawn { unit, generation: 1 }];
    assert_eq!(fleet.on(Event::Start, now), spawn);
    for nominal in [100, 200, 400] {
        let reason = "out of processes".to_owned();
        fleet.on(Event::SpawnFailed { unit, reason }, now);
        let due = fleet.next_deadline().unwrap();
        assert!(is_about(due - now, milliseconds(nominal)));
        now = due;
        assert_eq!(fleet.on(Event::Tick, now), spawn);
    }
}

fn exits() -> impl Strategy<Value = Exit> {
    prop_oneof![
        Just(Exit::Code(0)),
        Just(Exit::Code(1)),
        Just(Exit::Code(78)),
        Just(KILL),
        Just(CRASH),
        Just(Exit::OutOfMemory),
    ]
}
