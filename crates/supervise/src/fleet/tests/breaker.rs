//! Slots that fail too often.

use super::*;

/// Lets the worker in slot 0 fail as soon as it is started, until its breaker opens; tells how often.
fn fail_until_broken(world: &mut World) -> u32 {
    for failures in 1..20 {
        world.exit(world.worker(0), Exit::Code(1));
        if world.fleet.state(Unit::Worker(0)) == State::Broken {
            return failures;
        }
        world.time_to_restart(Unit::Worker(0));
    }
    panic!("the breaker never opens");
}

#[test]
fn five_failures_in_a_minute_open_the_breaker_and_siblings_do_not_notice() {
    let mut world = World::ready(rules(2, &[]));
    let sibling = world.worker(1);
    assert_eq!(fail_until_broken(&mut world), 5);
    assert_eq!(world.steered.last(), Some(&vec![1]));
    assert!(world.fleet.reason(Unit::Worker(0)).unwrap().contains("exited with code 1 before it was ready"));
    assert_eq!(world.worker(1), sibling);
    assert!(world.adopted.contains(&0), "whoever waits at its shard would wait for half a minute");
}

#[test]
fn an_open_breaker_lets_one_attempt_through_every_thirty_seconds() {
    let mut world = World::ready(rules(2, &[]));
    fail_until_broken(&mut world);
    for _ in 0..3 {
        world.pass(HALF_OPEN_AFTER - milliseconds(1));
        assert_eq!(world.fleet.state(Unit::Worker(0)), State::Broken);
        world.pass(milliseconds(1));
        assert_eq!(world.fleet.state(Unit::Worker(0)), State::Starting);
        world.exit(world.worker(0), CRASH);
        assert_eq!(world.fleet.state(Unit::Worker(0)), State::Broken, "one failure is enough now");
    }
    world.pass(HALF_OPEN_AFTER);
    world.say_ready();
    world.pass(SETTLED_AFTER);
    assert_eq!(world.fleet.reason(Unit::Worker(0)), None);
    world.exit(world.worker(0), CRASH);
    assert_eq!(world.fleet.state(Unit::Worker(0)), State::Backoff, "it had come through, so it counts anew");
}

#[test]
fn failures_that_lie_far_apart_open_nothing() {
    let mut world = World::ready(rules(1, &[]));
    for _ in 0..20 {
        world.exit(world.worker(0), CRASH);
        assert_eq!(world.fleet.state(Unit::Worker(0)), State::Backoff);
        world.time_to_restart(Unit::Worker(0));
        world.say_ready();
        world.pass(Duration::from_secs(9));
        world.beat();
        world.pass(Duration::from_secs(7));
        world.beat();
    }
}

#[test]
fn the_supervisor_gives_up_with_75_only_if_no_worker_was_ever_ready() {
    let mut never = World::new(rules(1, &[]));
    never.happen(Event::Start);
    fail_until_broken(&mut never);
    assert_eq!(never.outcome, Some(Outcome::NeverReady));

    let mut once = World::ready(rules(1, &[]));
    fail_until_broken(&mut once);
    once.pass(Duration::from_secs(3600));
    assert_eq!(once.outcome, None);
}

#[test]
fn a_restart_that_somebody_asks_for_does_not_wait_for_the_breaker() {
    let mut world = World::ready(rules(1, &[]));
    fail_until_broken(&mut world);
    world.happen(Event::Restart { ticket: Some(1), slot: Some(0), hard: false });
    assert_eq!(world.fleet.state(Unit::Worker(0)), State::Starting);
    assert!(world.answers.is_empty());
    world.say_ready();
    assert_eq!(world.answers, [(1, Ok(()))]);
}
