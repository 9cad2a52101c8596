//! The script against the same rules in Rust, step by step, with a clock that jumps.

use std::{collections::HashMap, sync::LazyLock};

use proptest::prelude::*;
use redis_store::{Arg, Reply, Script};
use test_support::Redis;

use super::*;
use crate::{
    Policies,
    identity::Identity,
    queue::Group,
    script::CheckScript,
    window::{Grid, Window},
};

/// The script with its clock in the caller's hand.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    let source = include_str!("../check.lua");
    assert_eq!(source.matches("call('TIME')").count(), 1);
    let source = source.replace("call('TIME')", "{ARGV[3], ARGV[4]}");
    Script::new(String::leak(source))
});

#[derive(Debug, Clone)]
struct Call {
    /// Microseconds since the call before, also backwards.
    clock: i64,
    /// Identity, set of policies as bits, waiting requests.
    groups: Vec<(u64, u8, u32)>,
}

#[derive(Default)]
struct Model {
    windows: HashMap<(u64, u8), Window>,
}

impl Model {
    /// The numbers that the script answers after the time.
    fn check(&mut self, policies: &Policies, group: &Group, now_us: u64) -> Vec<u64> {
        let windows: Vec<_> = group
            .set
            .iter()
            .map(|policy| {
                let slot = (group.identity.low, policy);
                let compiled = policies.get(policy);
                let grid = Grid::new(group.identity.seed(), compiled.window_us);
                let index = grid.current(None, now_us).index;
                let stored = self.windows.get(&slot).map(|window| as_stored(*window, index));
                let window = grid.current(stored, now_us);
                (slot, window, compiled.limit.saturating_sub(window.used), grid.until_end(window.index, now_us))
            })
            .collect();
        let left = windows.iter().map(|(_, _, left, _)| *left);
        let admitted = left.min().unwrap_or(u64::MAX).min(group.waiting.into());
        let mut numbers = vec![admitted];
        for (slot, window, left, until_end) in windows {
            self.windows.insert(slot, Window { used: window.used + admitted, ..window });
            numbers.extend([left - admitted, until_end]);
        }
        numbers
    }
}

/// A counter keeps its window's index modulo 8191. Here the clock jumps further than any counter lives, so indexes come round.
fn as_stored(window: Window, current: u64) -> Window {
    let candidates = [current, current + 1].into_iter();
    let index = candidates.into_iter().find(|index| index % 8191 == window.index % 8191).unwrap_or(window.index);
    Window { index, ..window }
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let clock = prop_oneof![
        5 => 0_i64..2000,
        3 => 0_i64..2_000_000,
        1 => -2_000_000_i64..0,
        1 => -4_000_000_000_i64..4_000_000_000_000,
    ];
    let group = (0_u64..4, 1_u8..16, prop_oneof![1_u32..4, 1_u32..2000]);
    let call = (clock, prop::collection::vec(group, 1..6)).prop_map(|(clock, groups)| Call { clock, groups });
    prop::collection::vec(call, 1..40)
}

fn policy_lists() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let limit = prop_oneof![0_u64..5, 0_u64..1000, Just(1_000_000_000_000)];
    let window_us = prop_oneof![1000_u64..100_000, 1_000_000_u64..100_000_000, 1000_u64..31_622_400_000_000];
    prop::collection::vec((limit, window_us), 4)
}

/// Identities whose windows begin at odd places.
fn identity(number: u64) -> Identity {
    let low = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // One lane, as a batch has on a cluster.
    Identity { high: number, low: low & !63 }
}

async fn compare(store: &RedisStore, policies: &Policies, calls: &[Call]) {
    let script = CheckScript::new(&unique_prefix(), policies);
    let mut model = Model::default();
    let mut now_us = 1_790_000_000_000_000_i64;
    for call in calls {
        now_us = (now_us + call.clock).max(0);
        let groups: Vec<Group> = call
            .groups
            .iter()
            .map(|&(number, bits, waiting)| Group {
                identity: identity(number),
                set: crate::PolicySet::from_bits(bits),
                waiting,
            })
            .collect();
        let mut arguments = script.arguments(&groups).to_vec();
        arguments.extend([Arg::Integer(now_us / 1_000_000), Arg::Integer(now_us % 1_000_000)]);
        let reply = store.run(&SCRIPT, &script.keys(&groups), &arguments).await.unwrap();
        let mut expected = vec![now_us as u64];
        for group in &groups {
            expected.extend(model.check(policies, group, now_us as u64));
        }
        let expected = expected.into_iter().map(|number| Reply::Integer(number as i64)).collect();
        assert_eq!(reply, Reply::Array(expected), "at {now_us} {call:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_script_does_what_the_model_says(list in policy_lists(), calls in calls()) {
        let policies: Vec<Policy> = list
            .iter()
            .enumerate()
            .map(|(number, &(limit, window_us))| policy(&format!("p{number}"), limit, Duration::from_micros(window_us)))
            .collect();
        let policies = Policies::new(&policies).unwrap();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let url = Url::parse(&Redis::shared().unix_url()).unwrap();
            let settings = redis_store::Config { url, command_timeout: PATIENCE };
            let store = RedisStore::connect(&settings, Role::State);
            store.first_attempt().await;
            compare(&store, &policies, &calls).await;
        });
    }
}
