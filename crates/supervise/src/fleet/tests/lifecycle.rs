//! Whatever processes do between a start and a stop: what always holds.

use super::super::restart::{RESTART, SETTLED_AFTER};
use super::*;

/// One thing that may happen in the world outside.
#[derive(Debug, Clone)]
enum Blow {
    Pass(u64),
    Ready(usize),
    Spoke(usize),
    Exit(usize, Exit),
    Stranger(i32, Exit),
}

fn blows() -> impl Strategy<Value = Vec<Blow>> {
    let blow = prop_oneof![
        3 => (0..20_000_u64).prop_map(Blow::Pass),
        3 => (0..300_u64).prop_map(Blow::Pass),
        3 => any::<usize>().prop_map(Blow::Ready),
        1 => any::<usize>().prop_map(Blow::Spoke),
        3 => (any::<usize>(), exits()).prop_map(|(who, exit)| Blow::Exit(who, exit)),
        1 => (-1..90, exits()).prop_map(|(pid, exit)| Blow::Stranger(pid, exit)),
    ];
    proptest::collection::vec(blow, 0..60)
}

impl World {
    fn suffer(&mut self, blow: &Blow) {
        let somebody = |who: usize| {
            let pids: Vec<i32> = self.running.keys().copied().collect();
            pids.get(who.checked_rem(pids.len())?).copied()
        };
        match *blow {
            Blow::Pass(ms) => self.pass(milliseconds(ms)),
            Blow::Ready(who) => {
                if let Some(pid) = somebody(who) {
                    self.happen(Event::Ready { pid });
                }
            }
            Blow::Spoke(who) => {
                if let Some(pid) = somebody(who) {
                    self.happen(Event::Spoke { pid });
                }
            }
            Blow::Exit(who, exit) => {
                if let Some(pid) = somebody(who) {
                    self.exit(pid, exit);
                }
            }
            Blow::Stranger(pid, exit) => self.happen(Event::Exited { pid, exit }),
        }
    }

    /// Whatever was killed ends; repeats until nothing more follows.
    fn let_the_killed_end(&mut self) {
        while let Some(pid) = self.killed.pop() {
            if self.running.contains_key(&pid) {
                self.exit(pid, KILL);
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_slot_has_two_workers_and_a_stop_ends_everything(
        workers in 1..4_u32,
        with_process in any::<bool>(),
        before in blows(),
        now in any::<bool>(),
        after in blows(),
    ) {
        // `World::act` panics on a second process in a slot, an empty steering and an early or second end.
        let mut world = World::new(rules(workers, if with_process { &["redis"] } else { &[] }));
        world.happen(Event::Start);
        for blow in &before {
            world.suffer(blow);
        }
        world.happen(if now { Event::StopNow } else { Event::Stop });
        let spawned_workers = |world: &World| {
            world.spawned.iter().filter(|(unit, _)| matches!(unit, Unit::Worker(_))).count()
        };
        let started = spawned_workers(&world);
        for blow in &after {
            world.suffer(blow);
        }
        world.let_the_killed_end();
        for _ in 0..2 {
            // First the workers' kill_timeout, then the processes'.
            world.pass(Duration::from_secs(31));
            world.let_the_killed_end();
        }
        prop_assert!(world.outcome.is_some());
        prop_assert!(world.running.is_empty());
        prop_assert_eq!(spawned_workers(&world), started, "a worker was started after the stop");
    }

    #[test]
    fn nothing_is_ever_started_faster_than_the_backoff_allows(blows in blows()) {
        let mut world = World::new(rules(1, &[]));
        world.happen(Event::Start);
        let unit = Unit::Worker(0);
        let mut model = Model::default();
        for blow in &blows {
            let (pid, state, spawned) = (world.pid_of(unit), world.fleet.state(unit), world.spawned.len());
            world.suffer(blow);
            if let Some((_, at)) = world.spawned.get(spawned) {
                prop_assert!(model.earliest.is_none_or(|earliest| *at >= earliest), "{model:?} {at:?}");
            }
            if state == State::Starting && world.fleet.state(unit) == State::Ready {
                model.ready_since = Some(world.now);
            }
            if let (Some(pid), Blow::Exit(_, exit)) = (pid, blow) && !world.running.contains_key(&pid) {
                model.exited(*exit, world.now);
            }
        }
    }
}

/// The restart rule, told a second time.
#[derive(Debug, Default)]
struct Model {
    /// In a row, and counting.
    failures: u32,
    ready_since: Option<Instant>,
    earliest: Option<Instant>,
}

impl Model {
    fn exited(&mut self, exit: Exit, now: Instant) {
        let ready_for = self.ready_since.take().map(|since| now - since);
        let wait = match (ready_for, exit) {
            (Some(time), _) if time >= SETTLED_AFTER => {
                self.failures = 0;
                RESTART.base
            }
            (Some(_), KILL) => RESTART.base,
            _ => {
                self.failures += 1;
                RESTART.delay(self.failures, 0.5)
            }
        };
        self.earliest = Some(now + wait.mul_f64(1.0 - RESTART.jitter) - Duration::from_micros(1));
    }
}
