//! The scripts against the same rules in Rust, step by step, with a clock that jumps.

mod counters;

use std::{collections::HashMap, sync::LazyLock};

use proptest::prelude::*;
use redis_store::{Arg, Bytes, Reply, Script};
use test_support::Redis;

use self::counters::{Counter, Left, Seen};
use super::*;
use crate::{
    Policies, Tier,
    identity::Identity,
    request::{Part, Parts},
    rule::Rule,
    script::Calls,
    state::held::Sequence,
    state::queue::{Batch, Group},
    state::settlement::Settlement,
};

/// Policies of every list: one of each algorithm, and one more that only watches.
const POLICIES: u8 = 8;

/// The scripts with their clock in the caller's hand, and counters that outlive any jump of it.
struct Scripts {
    check: Script,
    settle: Script,
    hold: Script,
}

static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| {
    let common = include_str!("../scripts/common.lua");
    Scripts {
        check: controlled(&[common, include_str!("../scripts/check.lua")]),
        settle: controlled(&[common, include_str!("../scripts/settle.lua")]),
        hold: controlled(&[include_str!("../scripts/hold.lua")]),
    }
});

fn controlled(source: &[&str]) -> Script {
    let source = source.concat();
    assert_eq!(source.matches("call('TIME')").count(), 1);
    assert_eq!(source.matches("ceil(lifetime / 1000) + 1000").count(), 1);
    let source = source.replace("call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}");
    Script::new(String::leak(source.replace("ceil(lifetime / 1000) + 1000", "ceil(lifetime / 1000) + 3600000")))
}

#[derive(Debug, Clone)]
enum Step {
    Check {
        spread: u32,
        groups: Vec<Asked>,
    },
    /// The counter, the units, and how long ago they were counted.
    Settle(Vec<(u64, u16, i64, u64)>),
    /// Holds on to, or gives back, what the model says is held.
    Hold {
        identity: u64,
        rule: u16,
        renew: bool,
    },
}

#[derive(Debug, Clone)]
struct Asked {
    identity: u64,
    rules: Vec<u16>,
    waiting: u32,
    wanted: u32,
    cost: u32,
}

/// Counters by identity and policy: tiers share them.
#[derive(Default)]
struct Model {
    counters: HashMap<(u64, u8), Counter>,
    next: Sequence,
}

impl Model {
    /// The numbers that the script answers after the time.
    fn check(&mut self, policies: &Policies, asked: &Asked, spread: u32, now: u64) -> Vec<i64> {
        let seed = identity(asked.identity).seed();
        let seen: Vec<(Seen<'_>, Left, &Rule)> = asked
            .rules
            .iter()
            .map(|&number| {
                let rule = policies.rule(number);
                let seen = Seen::new(self.counters.get(&(asked.identity, rule.policy)), rule, seed, now);
                let left = seen.left();
                (seen, left, rule)
            })
            .collect();
        let fits = |left: i128, rule: &Rule| left.div_euclid(i128::from(rule.units(asked.cost))).max(0);
        let enforced = || seen.iter().filter(|(_, _, rule)| !rule.shadow);
        let fit = enforced().map(|(_, left, rule)| fits(left.units, rule)).min().unwrap_or(i128::MAX / 4);
        let ahead = enforced().map(|(_, left, rule)| fits(left.ahead, rule)).min().unwrap_or(i128::MAX / 4);
        let waiting = i128::from(asked.waiting);
        let mut total = waiting.min(fit);
        if asked.wanted > 0 && ahead > waiting {
            total += i128::from(asked.wanted).min((fit - waiting) / i128::from(spread)).min(ahead - waiting);
        }
        let mut numbers = vec![total as i64];
        for (mut seen, left, rule) in seen {
            let own = if rule.shadow { total.min(fits(left.units, rule)) } else { total };
            let units = rule.units(asked.cost);
            let taken = own as u64 * units;
            let (mut units_left, wait) = seen.take(taken, units, self.next);
            if own < total {
                units_left = (own - total) as i64;
            }
            numbers.extend([units_left, wait]);
            let is_written = match seen.counter {
                // All who may be admitted are counted at first.
                Counter::Window(..) => asked.waiting + asked.wanted > 0,
                // To look at what leaves one by one is to remove what has left.
                Counter::Log(_) | Counter::Units(_) => true,
                _ => taken > 0,
            };
            if is_written {
                self.counters.insert((asked.identity, rule.policy), seen.counter);
            }
        }
        numbers
    }
}

fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
    let clock = prop_oneof![
        6 => 0_i64..2_000,
        4 => 0_i64..2_000_000,
        1 => -2_000_000_i64..0,
        1 => -4_000_000_000_i64..4_000_000_000_000,
    ];
    let rules = prop::collection::vec(0..2 * u16::from(POLICIES), 1..4).prop_map(|mut rules| {
        // Each policy once, as in a request.
        rules.sort_unstable();
        rules.dedup_by_key(|rule| *rule / 2);
        rules
    });
    let waiting = prop_oneof![4 => 1_u32..4, 1 => 0_u32..1, 2 => 1_u32..200];
    let wanted = prop_oneof![3 => Just(0_u32), 1 => 1_u32..1024];
    let cost = prop_oneof![4 => Just(1_u32), 1 => 1_u32..9];
    let asked = (0_u64..3, rules, waiting, wanted, cost).prop_map(|(identity, rules, waiting, wanted, cost)| Asked {
        identity,
        rules,
        waiting,
        wanted,
        cost,
    });
    let check =
        (1_u32..40, prop::collection::vec(asked, 1..14)).prop_map(|(spread, groups)| Step::Check { spread, groups });
    let change =
        (0_u64..3, 0..2 * u16::from(POLICIES), -20_i64..20, prop_oneof![3 => 0_u64..1_000, 1 => 0_u64..50_000_000]);
    let settle = prop::collection::vec(change, 1..4).prop_map(Step::Settle);
    let hold = (0_u64..3, 0..2 * u16::from(POLICIES), any::<bool>()).prop_map(|(identity, rule, renew)| Step::Hold {
        identity,
        rule,
        renew,
    });
    prop::collection::vec((clock, prop_oneof![8 => check, 2 => settle, 1 => hold]), 1..60)
}

/// For every policy: its limit, that of its tier, its window, its burst, how long it delays, and what a request takes.
fn policy_lists() -> impl Strategy<Value = Vec<(u64, u64, u64, u64, u64, u32)>> {
    let limit = || prop_oneof![2 => 0_u64..5, 4 => 1_u64..1000, 1 => Just(1_000_000_u64)];
    let window_us =
        prop_oneof![2 => 1000_u64..100_000, 4 => 1_000_000_u64..100_000_000, 1 => 1000_u64..31_622_400_000_000];
    let cost = prop_oneof![5 => Just(1_u32), 1 => 2_u32..7];
    let one = (limit(), limit(), window_us, 1_u64..60, 0_u64..3_000_000, cost);
    prop::collection::vec(one, usize::from(POLICIES))
}

fn compile(list: &[(u64, u64, u64, u64, u64, u32)]) -> Policies {
    let algorithms = |burst, max_delay| {
        [
            Algorithm::FixedWindow,
            Algorithm::Gcra { burst: Some(burst) },
            Algorithm::SlidingCounter,
            Algorithm::SlidingWindow,
            Algorithm::SlidingLog,
            Algorithm::Pacing { burst, max_delay },
            Algorithm::Concurrency,
            Algorithm::FixedWindow,
        ]
    };
    let policies = list.iter().enumerate().map(|(number, &(limit, of_tier, window_us, burst, max_delay_us, cost))| {
        // A burst that takes years to come back is refused.
        let burst = burst.min(2 * 31_622_400_000_000 / window_us);
        let algorithm = algorithms(burst, Duration::from_micros(max_delay_us))[number];
        let bounded = |limit: u64| match algorithm {
            Algorithm::SlidingLog | Algorithm::Concurrency => limit.min(300),
            Algorithm::Gcra { .. } | Algorithm::Pacing { .. } => limit.max(1),
            _ => limit,
        };
        Policy {
            algorithm,
            cost,
            tiers: vec![("tier".to_owned(), Tier::Limit(bounded(of_tier)))],
            shadow: number + 1 == usize::from(POLICIES),
            ..policy(&format!("p{number}"), bounded(limit), Duration::from_micros(window_us))
        }
    });
    Policies::new(&config(policies.collect())).unwrap()
}

/// Identities of one lane, whose windows begin at odd places.
fn identity(number: u64) -> Identity {
    let low = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Identity { high: number, low: low & !63 }
}

struct Comparison<'a> {
    store: &'a RedisStore,
    policies: &'a Policies,
    calls: Calls,
    model: Model,
    now_us: u64,
}

impl Comparison<'_> {
    async fn step(&mut self, step: &Step) -> usize {
        match step {
            Step::Check { spread, groups } => self.check(*spread, groups).await,
            Step::Settle(changes) => self.settle(changes).await,
            Step::Hold { identity, rule, renew } => self.hold(*identity, *rule, *renew).await,
        }
    }

    async fn run(&self, script: &Script, keys: &[Bytes], mut arguments: Vec<Arg>) -> Reply {
        let now_us = self.now_us as i64;
        arguments.extend([Arg::Integer(now_us / 1_000_000), Arg::Integer(now_us % 1_000_000)]);
        self.store.run(script, keys, &arguments).await.unwrap()
    }

    async fn check(&mut self, spread: u32, asked: &[Asked]) -> usize {
        let mut batch = Batch::default();
        batch.spread = spread;
        let mut expected = vec![self.now_us as i64];
        for asked in asked {
            let part = |&rule| Part { identity: identity(asked.identity), rule };
            let parts: Parts = asked.rules.iter().map(part).collect();
            let concurrent = asked.rules.iter().any(|rule| self.policies.rule(*rule).is_concurrency());
            let mut group = Group::new(Request::new(parts, asked.cost, false), asked.waiting);
            // What counts at the same time is never asked for ahead.
            let wanted = if concurrent { 0 } else { asked.wanted };
            group.wanted = wanted;
            group.sequences.extend(concurrent.then_some(self.model.next));
            batch.groups.push(group);
            let asked = Asked { wanted, ..asked.clone() };
            expected.extend(self.model.check(self.policies, &asked, spread, self.now_us));
            self.model.next += 100_000;
        }
        let (_, keys, arguments) = self.calls.check(&batch, self.policies);
        let reply = self.run(&SCRIPTS.check, &keys, arguments).await;
        let numbers = reply.into_bytes().unwrap();
        let numbers: Vec<i64> =
            numbers.chunks_exact(8).map(|number| i64::from_le_bytes(number.try_into().unwrap())).collect();
        let mut place = 1;
        for asked in asked {
            let end = place + 1 + 2 * asked.rules.len();
            let (said, meant) = (&numbers[place..end], &expected[place..end]);
            assert_eq!(said, meant, "at {} spread {spread} {asked:?}", self.now_us);
            place = end;
        }
        assert_eq!((numbers.len(), numbers[0]), (expected.len(), expected[0]));
        asked.len()
    }

    async fn settle(&mut self, changes: &[(u64, u16, i64, u64)]) -> usize {
        let (mut settlements, mut changed) = (Vec::new(), 0);
        for &(number, rule, units, age_us) in changes.iter().filter(|(_, _, units, _)| *units != 0) {
            let part = Part { identity: identity(number), rule };
            let counted_us = self.now_us.saturating_sub(age_us);
            settlements.push(Settlement { part, units, counted_us });
            let rule = self.policies.rule(rule);
            let counter = self.model.counters.get(&(number, rule.policy));
            let settled = Seen::settle(counter, rule, part.identity.seed(), (self.now_us, counted_us), units);
            changed += i64::from(settled.is_some());
            match settled {
                Some(Some(counter)) => drop(self.model.counters.insert((number, rule.policy), counter)),
                Some(None) => drop(self.model.counters.remove(&(number, rule.policy))),
                None => {}
            }
        }
        let (_, keys, arguments) = self.calls.settle(&settlements);
        let reply = self.run(&SCRIPTS.settle, &keys, arguments).await;
        assert_eq!(reply, Reply::Integer(changed), "at {} {changes:?}", self.now_us);
        changes.len()
    }

    async fn hold(&mut self, number: u64, rule: u16, renew: bool) -> usize {
        let compiled = self.policies.rule(rule);
        if !compiled.is_concurrency() {
            return 0;
        }
        let Some(Counter::Units(held)) = self.model.counters.get_mut(&(number, compiled.policy)) else { return 0 };
        // Half of what is there, and one that never was.
        let sequences: Vec<_> = held.keys().step_by(2).copied().chain([u64::MAX]).collect();
        let there = sequences.iter().filter(|sequence| held.contains_key(sequence)).count();
        for sequence in &sequences {
            if renew {
                held.entry(*sequence).and_modify(|expiry| *expiry = self.now_us + compiled.window_us);
            } else {
                held.remove(sequence);
            }
        }
        let part = Part { identity: identity(number), rule };
        let (_, keys, arguments) = self.calls.hold(&[(part, sequences)], renew, self.policies);
        let reply = self.run(&SCRIPTS.hold, &keys, arguments).await;
        assert_eq!(reply, Reply::Integer(there as i64), "at {}", self.now_us);
        1
    }
}

async fn compare(store: &RedisStore, policies: &Policies, steps: &[(i64, Step)]) -> usize {
    let calls = Calls::new(&unique_prefix(), policies);
    let mut comparison = Comparison { store, policies, calls, model: Model::default(), now_us: 1_790_000_000_000_000 };
    let mut compared = 0;
    for (clock, step) in steps {
        // Not before windows of a year had begun.
        comparison.now_us = comparison.now_us.saturating_add_signed(*clock).max(40_000_000_000_000);
        compared += comparison.step(step).await;
    }
    compared
}

/// Whatever the limits, the order and the clock: every number that a script answers is the one that the model gives. One of
/// so many decisions that each kind of mistake that was put into the scripts for a try was found.
#[test]
fn the_scripts_do_what_the_model_says() {
    let wanted = if std::env::var_os("BELLWETHER_LONG").is_some() { 1_000_000 } else { 100_000 };
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(async {
        let url = Url::parse(&Redis::shared().unix_url()).unwrap();
        let store = RedisStore::connect(&redis_store::Config { url, command_timeout: PATIENCE }, Role::State);
        store.first_attempt().await;
        store
    });
    let compared = std::cell::Cell::new(0);
    while compared.get() < wanted {
        let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let outcome = runner.run(&(policy_lists(), steps()), |(list, steps)| {
            let policies = compile(&list);
            let done = runtime.block_on(compare(&store, &policies, &steps));
            compared.set(compared.get() + done);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{error}"));
    }
}
