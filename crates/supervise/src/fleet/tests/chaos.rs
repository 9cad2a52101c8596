//! Whatever happens, in whatever order: what always holds.

use super::*;

#[derive(Debug, Clone)]
enum Blow {
    Pass(u64),
    Ready(usize),
    Beat(usize),
    Usage(usize, u64),
    Exit(usize, Exit),
    Reload(u32),
    Scale(u32),
    Restart(Option<u32>, bool),
    Scheduled,
    Woke,
    StoreAndRead,
}

fn blows() -> impl Strategy<Value = Vec<Blow>> {
    let blow = prop_oneof![
        4 => (0..3_000_u64).prop_map(Blow::Pass),
        1 => (0..60_000_u64).prop_map(Blow::Pass),
        8 => any::<usize>().prop_map(Blow::Ready),
        4 => any::<usize>().prop_map(Blow::Beat),
        1 => (any::<usize>(), 0..200_u64).prop_map(|(who, mib)| Blow::Usage(who, mib)),
        3 => (any::<usize>(), exits()).prop_map(|(who, exit)| Blow::Exit(who, exit)),
        1 => (1..4_u32).prop_map(Blow::Reload),
        1 => (1..5_u32).prop_map(Blow::Scale),
        1 => (proptest::option::of(0..5_u32), any::<bool>()).prop_map(|(slot, hard)| Blow::Restart(slot, hard)),
        1 => Just(Blow::Scheduled),
        1 => Just(Blow::Woke),
        1 => Just(Blow::StoreAndRead),
    ];
    proptest::collection::vec(blow, 0..80)
}

impl World {
    fn endure(&mut self, blow: &Blow) {
        let somebody = |world: &Self, who: usize| {
            let pids: Vec<i32> = world.running.keys().copied().collect();
            pids.get(who.checked_rem(pids.len())?).copied()
        };
        match *blow {
            Blow::Pass(ms) => self.pass(milliseconds(ms)),
            Blow::Ready(who) => somebody(self, who).into_iter().for_each(|pid| self.happen(Event::Ready { pid })),
            Blow::Beat(who) => somebody(self, who).into_iter().for_each(|pid| self.happen(Event::Beat { pid })),
            Blow::Usage(who, mib) => somebody(self, who).into_iter().for_each(|pid| {
                self.happen(Event::Usage { pid, rss_bytes: Some(mib << 20), requests: Some(mib) });
            }),
            Blow::Exit(who, exit) => somebody(self, who).into_iter().for_each(|pid| self.exit(pid, exit)),
            Blow::Reload(workers) if !self.fleet.is_reloading() && !self.fleet.is_stopping() => {
                let rules = Rules { workers, ..self.fleet.rules.clone() };
                self.happen(Event::Reload { ticket: Some(1), rules: Box::new(rules) });
            }
            Blow::Scale(to) if !self.fleet.is_reloading() && !self.fleet.is_stopping() => {
                self.happen(Event::Scale { ticket: Some(2), scale: Scale::To(to) });
            }
            Blow::Restart(slot, hard) if !self.fleet.is_reloading() && !self.fleet.is_stopping() => {
                self.happen(Event::Restart { ticket: Some(3), slot, hard });
            }
            Blow::Reload(_) | Blow::Scale(_) | Blow::Restart(..) => {}
            Blow::Scheduled => self.happen(Event::Scheduled),
            Blow::Woke => self.happen(Event::Woke),
            Blow::StoreAndRead => {
                let stored = serde_json::to_string(&self.fleet).unwrap();
                self.fleet = serde_json::from_str(&stored).unwrap();
            }
        }
    }

    /// What is told to end ends, and everybody else is well.
    fn calm_down(&mut self) {
        for _ in 0..200 {
            let leaving: Vec<i32> = self.drained.iter().chain(&self.killed).chain(&self.aborted).copied().collect();
            for pid in leaving {
                if self.running.contains_key(&pid)
                    && !matches!(self.fleet.part(pid), Some((Part::Serving, State::Ready)))
                {
                    self.exit(pid, Exit::Code(0));
                }
            }
            self.say_ready();
            self.pass(Duration::from_secs(1));
            self.beat();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_fleet_always_comes_to_rest_with_as_many_ready_workers_as_are_wanted(
        workers in 1..4_u32,
        processes in 0..2_usize,
        before in blows(),
    ) {
        // `World::act` and `World::pass` panic on a third process in a slot, an empty steering, a drain of the last ready
        // worker of a wanted slot, and a deadline that lies in the past.
        let mut world = World::new(Rules { max_memory: Some(150 << 20), max_requests: Some(190), ..rules(workers, &["redis"][..processes]) });
        world.happen(Event::Start);
        for blow in &before {
            world.endure(blow);
            if world.outcome.is_some() {
                return Ok(());
            }
        }
        if world.fleet.is_stopping() {
            return Ok(());
        }
        world.calm_down();
        if world.outcome.is_some() {
            return Ok(());
        }
        prop_assert!(!world.fleet.is_reloading(), "a reload never ends");
        let wanted = world.fleet.wanted();
        for slot in 0..wanted {
            let life = world.fleet.workers[slot as usize].life;
            let refused = life == Life::Broken { retry_at: None };
            prop_assert!(life.state() == State::Ready || refused, "w{slot} is {life:?}");
            prop_assert_eq!(world.fleet.generation_of(Unit::Worker(slot)), world.fleet.generation());
        }
        prop_assert!(world.running.len() <= wanted as usize + processes, "{:?}", world.running);
        let steered = world.steered.last().cloned().unwrap_or_else(|| (0..workers).collect());
        prop_assert!(steered.iter().all(|slot| *slot < wanted), "{steered:?}");
        prop_assert!(world.fleet.in_hand.is_none());
        prop_assert!(world.fleet.waits.is_empty(), "somebody waits for ever");
    }
}
