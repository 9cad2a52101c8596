//! How a fleet ends.

use super::*;

#[test]
fn a_stop_drains_workers_then_processes_then_ends() {
    let mut world = World::ready(rules(2, &["redis"]));
    let (first, second) = (world.worker(0), world.worker(1));
    let redis = world.pid_of(Unit::Process(0)).unwrap();
    world.happen(Event::Stop);
    world.happen(Event::Stop);
    assert_eq!(world.drained, [first, second]);
    assert!(world.listeners_closed, "the workers alone hold them, so that closing theirs ends them");
    world.exit(second, Exit::Code(0));
    assert_eq!(world.drained.len(), 2, "redis must outlive the workers");
    world.exit(first, Exit::Code(0));
    assert_eq!(world.drained, [first, second, redis]);
    assert_eq!(world.outcome, None);
    world.exit(redis, Exit::Code(0));
    assert_eq!(world.outcome, Some(Outcome::Clean));
}

#[test]
fn how_a_drained_worker_ends_decides_the_outcome() {
    let table = [
        (Exit::Code(0), Outcome::Clean),
        (Exit::Signal(15), Outcome::Clean),
        (Exit::Code(143), Outcome::Clean),
        (Exit::Code(1), Outcome::Cut),
        (CRASH, Outcome::Cut),
        (KILL, Outcome::Cut),
    ];
    for (exit, outcome) in table {
        let mut world = World::ready(rules(1, &[]));
        world.happen(Event::Stop);
        world.exit(world.only(Unit::Worker(0)), exit);
        assert_eq!(world.outcome, Some(outcome), "{exit:?}");
    }
}

#[test]
fn a_worker_that_ignores_its_drain_is_killed_at_the_timeout() {
    let mut world = World::ready(rules(1, &[]));
    let worker = world.worker(0);
    world.happen(Event::Stop);
    world.pass(milliseconds(29_999));
    assert!(world.killed.is_empty());
    world.pass(milliseconds(1));
    assert_eq!(world.killed, [worker]);
    world.exit(worker, KILL);
    assert_eq!(world.outcome, Some(Outcome::Cut));
}

#[test]
fn stop_now_kills_workers_at_once_and_gives_processes_a_second() {
    let mut world = World::ready(rules(2, &["redis"]));
    let (first, second) = (world.worker(0), world.worker(1));
    let redis = world.pid_of(Unit::Process(0)).unwrap();
    world.happen(Event::Stop);
    world.happen(Event::StopNow);
    assert_eq!(world.killed, [first, second]);
    world.exit(first, KILL);
    world.exit(second, KILL);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.killed, [first, second, redis]);
    world.exit(redis, KILL);
    assert_eq!(world.outcome, Some(Outcome::Cut));
}

#[test]
fn a_stop_during_a_restart_wait_starts_nothing_any_more() {
    let mut world = World::ready(rules(1, &[]));
    world.exit(world.worker(0), CRASH);
    let started = world.spawned.len();
    world.happen(Event::Stop);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.spawned.len(), started);
    assert_eq!(world.outcome, Some(Outcome::Clean));
}
