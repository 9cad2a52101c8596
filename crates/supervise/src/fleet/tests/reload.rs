//! Reloads: the successor first, one slot at a time, and back when a new worker is no good.

use super::*;
use crate::fleet::restart::FAILURES_TOLERATED;

impl World {
    fn reload(&mut self) {
        self.reload_with(self.fleet.rules.clone());
    }

    fn reload_with(&mut self, rules: Rules) {
        self.happen(Event::Reload { ticket: Some(7), rules: Box::new(rules) });
    }

    /// The process that is to take the place of the one in `slot`.
    fn successor(&self, slot: u32) -> Option<i32> {
        let is_successor = |pid: &&i32| matches!(self.fleet.part(**pid), Some((Part::Succeeding, _)));
        let of_slot = self.running.iter().filter(|(_, (unit, _))| *unit == Unit::Worker(slot)).map(|(pid, _)| pid);
        of_slot.into_iter().find(is_successor).copied()
    }

    fn generations(&self) -> Vec<u32> {
        (0..self.fleet.wanted()).map(|slot| self.fleet.generation_of(Unit::Worker(slot))).collect()
    }

    fn failure(&self) -> &ReloadFailure {
        self.reloads_ended.last().expect("a reload has ended").as_ref().expect("and has failed")
    }
}

#[test]
fn each_slot_gets_its_successor_before_its_worker_is_told_to_end() {
    let mut world = World::ready(rules(3, &[]));
    let before: Vec<i32> = (0..3).map(|slot| world.worker(slot)).collect();
    let steered = world.steered.len();
    world.reload();
    let canary = world.successor(0).expect("the first slot is tried first");
    assert_eq!(world.successor(1), None);
    assert_eq!(world.running[&canary], (Unit::Worker(0), 2));
    assert!(world.drained.is_empty());

    world.happen(Event::Ready { pid: canary });
    world.pass(milliseconds(1_999));
    assert!(world.drained.is_empty(), "the one before serves on while the canary proves itself");
    assert_eq!(world.successor(1), None);
    world.pass(milliseconds(1));
    assert_eq!(world.drained, [before[0]]);

    for slot in 1..3 {
        let successor = world.successor(slot).expect("the others follow one by one");
        assert_eq!(world.drained.len(), slot as usize);
        world.happen(Event::Ready { pid: successor });
        assert_eq!(world.drained, before[..=slot as usize]);
    }
    assert_eq!(world.reloads_ended, [None]);
    assert_eq!((world.fleet.generation(), world.generations()), (2, vec![2, 2, 2]));
    assert_eq!(world.steered.len(), steered, "nothing changed for the clients");
    for pid in before {
        world.exit(pid, Exit::Code(0));
    }
    assert_eq!(world.restarts(), 0, "a reload is no restart");
}

#[test]
fn a_new_worker_that_exits_or_is_not_ready_in_time_changes_nothing() {
    let exits: [(Option<Exit>, &str); 3] = [
        (Some(Exit::Code(78)), "exited with code 78 before it was ready"),
        (Some(CRASH), "was ended by signal 11 (SIGSEGV) before it was ready"),
        (None, "was not ready within 30.0s"),
    ];
    for (exit, why) in exits {
        let mut world = World::ready(rules(2, &[]));
        let before: Vec<i32> = (0..2).map(|slot| world.worker(slot)).collect();
        world.reload();
        let canary = world.successor(0).unwrap();
        if exit.is_none() {
            world.pass(Duration::from_secs(30));
            assert_eq!(world.killed, [canary]);
        }
        world.exit(canary, exit.unwrap_or(KILL));
        let failure = world.failure();
        assert!(failure.message.ends_with(why), "{failure:?}");
        assert_eq!(failure.pid, Some(canary));
        assert_eq!((0..2).map(|slot| world.worker(slot)).collect::<Vec<_>>(), before);
        assert_eq!((world.fleet.generation(), world.generations()), (1, vec![1, 1]));
        world.pass(Duration::from_secs(60));
        assert!(world.drained.is_empty());
        assert_eq!(world.spawned.len(), 3, "nothing is tried again");
    }
}

#[test]
fn a_canary_that_crashes_within_its_time_leaves_the_worker_before_it_in_place() {
    let mut world = World::ready(rules(2, &[]));
    let before = world.worker(0);
    world.reload();
    let canary = world.successor(0).unwrap();
    world.happen(Event::Ready { pid: canary });
    world.pass(milliseconds(1_500));
    world.exit(canary, CRASH);
    assert!(world.failure().message.ends_with("right after it was ready"), "{:?}", world.failure());
    assert_eq!(world.worker(0), before);
    assert!(world.drained.is_empty());
}

#[test]
fn a_failure_in_a_later_slot_brings_the_old_generation_back_everywhere() {
    let mut world = World::ready(rules(3, &[]));
    world.reload();
    for slot in 0..2 {
        world.happen(Event::Ready { pid: world.successor(slot).unwrap() });
        world.pass(Duration::from_secs(2));
    }
    assert_eq!(world.generations(), [2, 2, 1]);
    world.exit(world.successor(2).unwrap(), Exit::Code(1));
    assert!(world.reloads_ended.is_empty(), "it has not gone back yet");
    for slot in 0..2 {
        let successor = world.successor(slot).expect("the old generation returns one by one");
        assert_eq!(world.running[&successor].1, 1);
        world.happen(Event::Ready { pid: successor });
    }
    assert!(world.failure().message.starts_with("w2 "));
    assert_eq!((world.fleet.generation(), world.generations()), (1, vec![1, 1, 1]));
    assert_eq!(world.fleet.next_generation(), 3, "a number is never used twice");
}

#[test]
fn the_way_back_is_tried_until_it_succeeds() {
    let mut world = World::ready(rules(2, &[]));
    world.reload();
    world.happen(Event::Ready { pid: world.successor(0).unwrap() });
    world.pass(Duration::from_secs(2));
    world.exit(world.successor(1).unwrap(), Exit::Code(1));
    for _ in 0..3 {
        let successor = world.successor(0).expect("the old generation is tried");
        let serving = world.worker(0);
        world.exit(successor, Exit::Code(69));
        assert_eq!(world.worker(0), serving);
        world.pass(Duration::from_secs(2));
    }
    world.happen(Event::Ready { pid: world.successor(0).unwrap() });
    assert_eq!(world.generations(), [1, 1]);
    assert_eq!(world.reloads_ended.len(), 1);
}

#[test]
fn the_death_of_the_old_worker_during_a_reload_makes_its_successor_count() {
    let mut world = World::ready(rules(2, &[]));
    world.reload();
    let canary = world.successor(0).unwrap();
    world.exit(world.worker(0), KILL);
    assert_eq!(world.worker(0), canary);
    assert_eq!(world.fleet.state(Unit::Worker(0)), State::Starting);
    world.happen(Event::Ready { pid: canary });
    assert_eq!(world.successor(1), None, "it is still the canary");
    world.pass(Duration::from_secs(2));
    world.happen(Event::Ready { pid: world.successor(1).unwrap() });
    assert_eq!(world.reloads_ended, [None]);
}

#[test]
fn an_old_worker_that_dies_before_its_turn_is_restarted_as_it_was() {
    let mut world = World::ready(rules(2, &[]));
    world.reload();
    world.exit(world.worker(1), KILL);
    world.pass(milliseconds(200));
    assert_eq!(world.running[&world.worker(1)].1, 1, "the new generation has not proven itself");
    world.happen(Event::Ready { pid: world.successor(0).unwrap() });
    world.pass(Duration::from_secs(2));
    assert_eq!(world.generations(), [2, 2], "what was not ready yet is replaced directly");
    world.say_ready();
    assert_eq!(world.reloads_ended, [None]);
}

#[test]
fn a_reload_gets_a_service_out_of_a_crash_loop() {
    let mut world = World::ready(rules(1, &[]));
    world.exit(world.worker(0), Exit::Code(78));
    assert_eq!(world.fleet.state(Unit::Worker(0)), State::Broken);
    world.reload();
    world.say_ready();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.reloads_ended, [None]);
    assert_eq!(world.fleet.state(Unit::Worker(0)), State::Ready);
}

#[test]
fn the_configured_number_applies_only_if_it_is_a_new_one() {
    let mut world = World::ready(rules(2, &[]));
    world.happen(Event::Scale { ticket: None, scale: Scale::To(3) });
    world.say_ready();
    let finish = |world: &mut World| {
        for _ in 0..10 {
            world.say_ready();
            world.pass(Duration::from_secs(2));
            world.beat();
        }
    };
    world.reload();
    finish(&mut world);
    assert_eq!(world.fleet.wanted(), 3, "what was scaled lasts across a reload");
    world.reload_with(rules(4, &[]));
    finish(&mut world);
    assert_eq!(world.fleet.wanted(), 4);
    assert_eq!(world.reloads_ended, [None, None]);
}

#[test]
fn a_reload_with_other_numbers_goes_by_them_only_if_it_succeeds() {
    let mut world = World::ready(rules(1, &[]));
    world.reload_with(Rules { ready_timeout: Duration::from_secs(3), ..rules(1, &[]) });
    let canary = world.successor(0).unwrap();
    world.pass(Duration::from_secs(3));
    assert_eq!(world.killed, [canary]);
    world.exit(canary, KILL);
    assert_eq!(world.fleet.rules.ready_timeout, Duration::from_secs(30));
}

#[test]
fn a_stop_during_a_reload_ends_everything_and_tells_who_waits() {
    let mut world = World::ready(rules(2, &[]));
    world.reload();
    world.happen(Event::Stop);
    assert_eq!(world.failure().message, "the supervisor ends");
    assert_eq!(world.drained.len(), 3);
    for pid in world.drained.clone() {
        world.exit(pid, Exit::Code(0));
    }
    assert_eq!(world.outcome, Some(Outcome::Clean));
}

#[test]
fn a_way_back_that_is_barred_ends_with_the_new_worker_where_it_serves() {
    // What the old release says, and how often it is asked. After the new one has changed a database, it may never start again.
    for (exit, attempts) in [(Exit::Code(78), 1), (Exit::Code(1), FAILURES_TOLERATED)] {
        let mut world = World::ready(rules(2, &[]));
        let old = world.worker(1);
        world.reload();
        world.happen(Event::Ready { pid: world.successor(0).unwrap() });
        world.pass(Duration::from_secs(2));
        let new = world.worker(0);
        world.exit(world.successor(1).unwrap(), Exit::Code(1));
        for attempt in 1..=attempts {
            assert!(world.reloads_ended.is_empty(), "{attempt}");
            let successor = world.successor(0).expect("the old generation is tried");
            world.exit(successor, exit);
            world.pass(Duration::from_secs(20));
        }
        let message = &world.failure().message;
        assert!(message.starts_with("w1 ") && message.ends_with("the worker of generation 2 stays"), "{message}");
        assert_eq!((world.worker(0), world.worker(1)), (new, old));
        world.exit(new, KILL);
        world.pass(milliseconds(200));
        assert_eq!(world.running[&world.worker(0)].1, 1, "its successor is of the generation that is in force");
    }
}

#[test]
fn a_reload_before_the_first_worker_waits_for_the_processes_without_a_busy_loop() {
    let mut world = World::new(rules(2, &["redis"]));
    world.happen(Event::Start);
    world.reload();
    world.pass(Duration::from_secs(20));
    assert_eq!(world.running.len(), 1, "workers wait for the first attempt of the process");
    world.say_ready();
    for _ in 0..5 {
        world.say_ready();
        world.pass(Duration::from_secs(2));
    }
    assert_eq!(world.reloads_ended, [None]);
    assert_eq!(world.generations(), [2, 2]);
}

#[test]
fn auxiliary_processes_stay_as_they_were_started_whatever_a_reload_finds() {
    for found in [&[][..], &["redis", "jobs"]] {
        let mut world = World::ready(rules(1, &["redis"]));
        world.reload_with(rules(1, found));
        world.say_ready();
        world.pass(Duration::from_secs(2));
        assert_eq!(world.reloads_ended, [None]);
        world.exit(world.pid_of(Unit::Process(0)).unwrap(), CRASH);
        assert!(world.log.last().unwrap().starts_with("redis "), "{:?}", world.log);
    }
}

#[test]
fn a_reload_is_over_when_no_old_worker_accepts_any_more_or_after_a_second() {
    for says_so in [true, false] {
        let mut world = World::ready(rules(1, &[]));
        world.close_listeners_at_once = false;
        let before = world.worker(0);
        world.reload();
        let canary = world.successor(0).unwrap();
        world.happen(Event::Ready { pid: canary });
        world.pass(milliseconds(2_000));
        assert_eq!((world.drained.as_slice(), world.reloads_ended.len()), ([before].as_slice(), 0));
        world.pass(milliseconds(999));
        assert!(world.reloads_ended.is_empty());
        if says_so {
            world.happen(Event::Stopping { pid: before });
        } else {
            world.pass(milliseconds(1));
        }
        assert_eq!(world.reloads_ended, [None]);
        world.exit(before, Exit::Code(0));
        assert!(world.fleet.next_deadline().is_none_or(|due| due > world.now), "a busy loop");
    }
}
