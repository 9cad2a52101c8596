//! Workers that hang, leak or grow old.

use super::*;

/// All beat once a second until `end`, but for the worker in `silent`.
fn go_on(world: &mut World, time: Duration, silent: Option<i32>) {
    for _ in 0..time.as_secs() {
        world.pass(Duration::from_secs(1));
        for pid in world.running.keys().copied().filter(|pid| Some(*pid) != silent).collect::<Vec<_>>() {
            world.happen(Event::Beat { pid });
        }
    }
}

#[test]
fn a_silent_worker_is_steered_around_then_aborted_and_replaced_and_killed() {
    let mut world = World::ready(rules(2, &[]));
    go_on(&mut world, Duration::from_secs(5), None);
    let hung = world.worker(0);
    world.adopted.clear();
    go_on(&mut world, Duration::from_secs(1), Some(hung));
    assert_eq!(world.steered.last(), Some(&vec![0, 1]));
    go_on(&mut world, Duration::from_secs(1), Some(hung));
    assert_eq!(world.steered.last(), Some(&vec![1]), "after a second and a half");
    assert!(world.adopted.is_empty());
    go_on(&mut world, Duration::from_secs(1), Some(hung));
    assert_eq!(world.adopted, [0], "who waits at its shard need not wait for its successor");
    go_on(&mut world, Duration::from_secs(6), Some(hung));
    assert!(world.aborted.is_empty());
    go_on(&mut world, Duration::from_secs(1), Some(hung));
    assert_eq!(world.aborted, [hung]);
    let successor = world.worker(0);
    assert_ne!(successor, hung, "the successor is started at once");
    world.happen(Event::Ready { pid: successor });
    assert_eq!(world.steered.last(), Some(&vec![0, 1]));
    world.pass(milliseconds(1_999));
    assert!(world.killed.is_empty());
    world.pass(milliseconds(1));
    assert_eq!(world.killed, [hung]);
    world.exit(hung, KILL);
    assert_eq!(world.restarts(), 1);
}

#[test]
fn a_worker_that_is_heard_of_again_gets_connections_again() {
    let mut world = World::ready(rules(2, &[]));
    go_on(&mut world, Duration::from_secs(2), None);
    let slow = world.worker(1);
    go_on(&mut world, Duration::from_secs(4), Some(slow));
    assert_eq!(world.steered.last(), Some(&vec![0]));
    world.happen(Event::Beat { pid: slow });
    assert_eq!(world.steered.last(), Some(&vec![0, 1]));
    go_on(&mut world, Duration::from_secs(60), None);
    assert!(world.aborted.is_empty());
}

#[test]
fn only_a_worker_that_has_beaten_once_is_watched() {
    let mut world = World::ready(rules(1, &[]));
    world.pass(Duration::from_secs(3600));
    assert!(world.aborted.is_empty());
}

#[test]
fn when_all_are_silent_all_keep_their_connections() {
    let mut world = World::ready(rules(2, &[]));
    go_on(&mut world, Duration::from_secs(1), None);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.steered.last(), Some(&vec![0, 1]));
}

#[test]
fn a_suspended_machine_aborts_nobody() {
    let mut world = World::ready(rules(2, &[]));
    go_on(&mut world, Duration::from_secs(2), None);
    world.now += Duration::from_secs(3600);
    world.happen(Event::Woke);
    world.pass(Duration::from_secs(9));
    assert!(world.aborted.is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.aborted.len(), 2, "but who stays silent is stuck");
}

#[test]
fn a_hung_canary_fails_the_reload() {
    let mut world = World::ready(rules(1, &[]));
    let rules =
        Rules { canary: Duration::from_secs(60), hang_timeout: Duration::from_secs(3), ..world.fleet.rules.clone() };
    world.happen(Event::Reload { ticket: None, rules: Box::new(rules) });
    world.say_ready();
    go_on(&mut world, Duration::from_secs(1), None);
    let before = world.worker(0);
    for _ in 0..5 {
        world.pass(Duration::from_secs(1));
        world.happen(Event::Beat { pid: before });
    }
    let [Some(failure)] = world.reloads_ended.as_slice() else { panic!("{:?}", world.reloads_ended) };
    assert!(failure.message.contains("has not been heard of"), "{failure:?}");
    assert_eq!(world.worker(0), before);
}

#[test]
fn too_much_memory_replaces_the_worker_with_its_successor_ready_first_and_one_at_a_time() {
    let mut world = World::ready(Rules { max_memory: Some(100 << 20), ..rules(2, &[]) });
    world.pass(Duration::from_secs(60));
    let before = [world.worker(0), world.worker(1)];
    for pid in before {
        world.happen(Event::Usage { pid, rss_bytes: Some(100 << 20), requests: None });
    }
    assert_eq!(world.running.len(), 2, "the limit itself is allowed");
    for pid in before {
        world.happen(Event::Usage { pid, rss_bytes: Some(101 << 20), requests: None });
    }
    assert_eq!(world.running.len(), 3, "one at a time");
    assert!(world.drained.is_empty());
    world.say_ready();
    assert_eq!(world.drained, before[..1]);
    world.say_ready();
    assert_eq!(world.drained, before);
    assert_eq!(world.fleet.replaced().collect::<Vec<_>>(), [(Reason::Memory, 2)]);
}

#[test]
fn the_limit_of_requests_differs_from_worker_to_worker_by_up_to_fifteen_percent() {
    let mut limits = std::collections::BTreeSet::new();
    let mut world = World::ready(Rules { max_requests: Some(1_000), ..rules(1, &[]) });
    for _ in 0..20 {
        let worker = world.worker(0);
        let mut requests = 0;
        while world.running.len() == 1 {
            requests += 1;
            assert!(requests < 1_200, "it is never replaced");
            world.happen(Event::Usage { pid: worker, rss_bytes: None, requests: Some(requests) });
            world.pass(milliseconds(10));
        }
        assert!((850..=1_150).contains(&requests), "{requests}");
        limits.insert(requests / 20);
        world.say_ready();
        world.exit(worker, Exit::Code(0));
    }
    assert!(limits.len() > 4, "all at about the same: {limits:?}");
}

#[test]
fn an_old_worker_is_replaced_and_so_are_all_when_it_is_time() {
    let mut world = World::ready(Rules { max_age: Some(Duration::from_secs(1_000)), ..rules(1, &[]) });
    world.pass(Duration::from_secs(849));
    assert_eq!(world.spawned.len(), 1);
    world.pass(Duration::from_secs(302));
    assert_eq!(world.spawned.len(), 2);

    let mut world = World::ready(rules(2, &[]));
    world.happen(Event::Scheduled);
    world.say_ready();
    world.say_ready();
    assert_eq!(world.fleet.replaced().collect::<Vec<_>>(), [(Reason::Cron, 2)]);
}

#[test]
fn a_successor_that_fails_leaves_the_worker_and_is_tried_again_with_growing_waits() {
    let mut world = World::ready(rules(1, &[]));
    let before = world.worker(0);
    world.happen(Event::Restart { ticket: Some(3), slot: Some(0), hard: false });
    for nominal in [100, 200, 400] {
        let successor = *world.running.keys().last().unwrap();
        world.exit(successor, CRASH);
        assert_eq!(world.worker(0), before);
        let begun = world.now;
        while world.running.len() == 1 {
            world.pass(milliseconds(1));
        }
        assert!(is_about(world.now - begun, milliseconds(nominal)), "{:?}", world.now - begun);
    }
    assert!(matches!(world.answers.as_slice(), [(3, Err(_))]), "who asked was told at the first failure");
    world.say_ready();
    assert_eq!(world.drained, [before]);
}
