//! More and fewer workers, and restarts that somebody asks for.

use super::*;

impl World {
    fn scale(&mut self, scale: Scale) {
        self.happen(Event::Scale { ticket: Some(5), scale });
    }
}

#[test]
fn more_workers_are_started_at_once_and_the_answer_comes_when_they_are_ready() {
    let mut world = World::ready(rules(2, &[]));
    world.scale(Scale::By(2));
    assert_eq!(world.fleet.wanted(), 4);
    assert_eq!(world.steered.last(), Some(&vec![0, 1]), "connections go to who is ready");
    assert!(world.answers.is_empty());
    world.say_ready();
    assert_eq!(world.steered.last(), Some(&vec![0, 1, 2, 3]));
    assert_eq!(world.answers, [(5, Ok(()))]);
}

#[test]
fn a_worker_that_is_not_wanted_is_steered_around_first_and_drained_when_nobody_waits() {
    let mut world = World::ready(rules(3, &[]));
    let (second, third) = (world.worker(1), world.worker(2));
    world.queued = 1;
    world.scale(Scale::To(1));
    assert_eq!(world.steered.last(), Some(&vec![0]));
    assert_eq!(world.answers, [(5, Ok(()))], "nobody has to wait for a drain");
    world.pass(milliseconds(999));
    assert!(world.drained.is_empty());
    world.pass(milliseconds(500));
    assert!(world.drained.is_empty(), "somebody waits at its shard");
    world.queued = 0;
    world.pass(milliseconds(50));
    assert_eq!(world.drained.iter().copied().collect::<std::collections::BTreeSet<_>>(), [second, third].into());
    for pid in [second, third] {
        world.exit(pid, Exit::Code(0));
    }
    world.pass(Duration::from_secs(60));
    assert_eq!(world.running.len(), 1);
    assert_eq!(world.outcome, None);
}

#[test]
fn workers_are_told_their_number_whenever_it_is_another_one() {
    let mut world = World::ready(rules(2, &[]));
    for (to, told) in [(2, &[][..]), (4, &[4]), (4, &[]), (1, &[1])] {
        world.told_number.clear();
        world.scale(Scale::To(to));
        assert_eq!(world.told_number, told, "{to}");
    }
    world.told_number.clear();
    world.happen(Event::Reload { ticket: None, rules: Box::new(rules(3, &[])) });
    world.say_ready();
    assert_eq!(world.told_number, [0; 0], "not before the configured number applies");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.told_number, [3]);
}

#[test]
fn there_is_always_one_worker() {
    let mut world = World::ready(rules(2, &[]));
    world.scale(Scale::By(-5));
    assert_eq!(world.fleet.wanted(), 1);
    world.scale(Scale::To(0));
    assert_eq!(world.fleet.wanted(), 1);
}

#[test]
fn a_worker_wanted_again_before_it_was_drained_goes_on() {
    let mut world = World::ready(rules(2, &[]));
    let second = world.worker(1);
    world.scale(Scale::To(1));
    world.pass(milliseconds(500));
    world.scale(Scale::To(2));
    world.pass(Duration::from_secs(5));
    assert_eq!(world.worker(1), second);
    assert_eq!(world.steered.last(), Some(&vec![0, 1]));
}

#[test]
fn a_worker_that_drains_does_not_keep_its_slot_from_a_new_one() {
    let mut world = World::ready(rules(2, &[]));
    let second = world.worker(1);
    world.scale(Scale::To(1));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.drained, [second]);
    world.scale(Scale::To(2));
    assert_ne!(world.worker(1), second);
    world.say_ready();
    assert_eq!(world.answers.last(), Some(&(5, Ok(()))));
    world.exit(second, Exit::Code(0));
    assert_eq!(world.fleet.state(Unit::Worker(1)), State::Ready);
}

#[test]
fn whoever_waits_for_a_worker_that_fails_is_told() {
    let mut world = World::ready(rules(1, &[]));
    world.scale(Scale::To(2));
    world.exit(world.worker(1), Exit::Code(1));
    let [(5, Err(message))] = world.answers.as_slice() else { panic!("{:?}", world.answers) };
    assert!(message.starts_with("w1 ") && message.ends_with("exited with code 1 before it was ready"), "{message}");
}

#[test]
fn a_restart_replaces_one_worker_after_another_and_never_serves_with_less() {
    let mut world = World::ready(rules(2, &[]));
    let before = [world.worker(0), world.worker(1)];
    world.happen(Event::Restart { ticket: Some(9), slot: None, hard: false });
    assert_eq!(world.running.len(), 3, "one at a time");
    world.say_ready();
    assert_eq!(world.drained, before[..1]);
    world.say_ready();
    assert_eq!(world.drained, before);
    assert_eq!(world.answers, [(9, Ok(()))]);
    assert_eq!(world.fleet.generation(), 1);
}

#[test]
fn a_hard_restart_kills_first_and_starts_the_next_at_once() {
    let mut world = World::ready(rules(1, &[]));
    let before = world.worker(0);
    world.happen(Event::Restart { ticket: Some(9), slot: Some(0), hard: true });
    assert_eq!(world.killed, [before]);
    assert_ne!(world.worker(0), before);
    world.say_ready();
    assert_eq!(world.answers, [(9, Ok(()))]);
    world.exit(before, KILL);
    assert_eq!(world.fleet.state(Unit::Worker(0)), State::Ready);
}

#[test]
fn a_worker_that_does_not_exist_cannot_be_restarted() {
    let mut world = World::ready(rules(2, &[]));
    world.happen(Event::Restart { ticket: Some(9), slot: Some(2), hard: false });
    assert_eq!(world.answers, [(9, Err("there is no worker w2".to_owned()))]);
}

#[test]
fn a_hard_restart_before_the_first_worker_starts_no_second_one() {
    let mut world = World::new(rules(1, &["redis"]));
    world.happen(Event::Start);
    world.happen(Event::Restart { ticket: Some(9), slot: None, hard: true });
    assert_eq!(world.running.len(), 1, "the process comes first");
    world.say_ready();
    assert_eq!(world.running.len(), 2);
    world.say_ready();
    assert_eq!(world.answers, [(9, Ok(()))]);
}
