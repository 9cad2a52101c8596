//! Talking to the scripts: keys, arguments and what they answer.

use std::time::Duration;

use bytes::Buf as _;
use redis_store::{Arg, Bytes, Reply, Script};

use crate::{
    identity::LANES,
    policies::Policies,
    request::{Part, Request},
    state::held::Sequence,
    state::queue::Batch,
    state::queue::Group,
    state::settlement::Settlement,
};

/// Bytes of a number in an answer.
const NUMBER: usize = size_of::<i64>();

/// The scripts, with what is the same in every call.
pub(crate) struct Calls {
    check: Script,
    settle: Script,
    hold: Script,
    control: Script,
    /// Every rule, encoded.
    rules: Bytes,
    /// `prefix:rl:{lane}:` of every lane.
    lanes: Vec<String>,
    /// `:policy`, and a mark of the algorithm, of every rule.
    suffixes: Vec<String>,
    /// Names this worker's units at the same time.
    holder: Bytes,
    prefix: String,
    channel: String,
}

/// A script with its keys and arguments.
pub(crate) type Call<'a> = (&'a Script, Vec<Bytes>, Vec<Arg>);

/// A change by hand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Control {
    Reset,
    Block(Duration),
    Unblock,
}

/// What Redis answered.
pub(crate) struct Answer {
    /// Redis's clock, in microseconds since the Unix epoch.
    pub(crate) now_us: u64,
    /// Numbers of 64 bits.
    numbers: Bytes,
}

impl Calls {
    pub(crate) fn new(prefix: &str, policies: &Policies) -> Self {
        let suffix = |rule: &crate::rule::Rule| format!(":{}{}", policies.name(rule.policy), rule.mark());
        Self {
            check: Script::new(concat!(include_str!("scripts/common.lua"), include_str!("scripts/check.lua"))),
            settle: Script::new(concat!(include_str!("scripts/common.lua"), include_str!("scripts/settle.lua"))),
            hold: Script::new(include_str!("scripts/hold.lua")),
            control: Script::new(include_str!("scripts/control.lua")),
            rules: crate::rule::encode(policies.rules()).into(),
            lanes: (0..LANES).map(|lane| format!("{prefix}:rl:{{{lane}}}:")).collect(),
            suffixes: policies.rules().iter().map(suffix).collect(),
            holder: Bytes::copy_from_slice(&holder()),
            prefix: prefix.to_owned(),
            channel: format!("{prefix}:rl:ctl"),
        }
    }

    /// What the names of all counters look like, as `SCAN` has it.
    pub(crate) fn pattern(&self) -> String {
        format!("{}:rl:*", self.prefix)
    }

    /// The channel on which changes by hand are told.
    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    /// Asks about the groups of a batch.
    pub(crate) fn check(&self, batch: &Batch, policies: &Policies) -> Call<'_> {
        let keys = self.keys(batch.groups.iter().flat_map(|group| group.request.parts.iter()));
        let mut encoded = Vec::with_capacity(4 + batch.groups.len() * 20);
        encoded.extend_from_slice(&batch.spread.to_le_bytes());
        for group in &batch.groups {
            encode_group(&mut encoded, group, policies);
        }
        (&self.check, keys, vec![self.rules.clone().into(), encoded.into(), self.holder.clone().into()])
    }

    /// Tells what has changed.
    pub(crate) fn settle(&self, changes: &[Settlement]) -> Call<'_> {
        let keys = self.keys(changes.iter().map(|change| &change.part));
        let mut encoded = Vec::with_capacity(changes.len() * 22);
        for Settlement { part, units, counted_us } in changes {
            encoded.extend_from_slice(&part.rule.to_le_bytes());
            encoded.extend_from_slice(&part.identity.seed().to_le_bytes());
            encoded.extend_from_slice(&counted_us.to_le_bytes());
            encoded.extend_from_slice(&units.to_le_bytes());
        }
        (&self.settle, keys, vec![self.rules.clone().into(), encoded.into()])
    }

    /// Holds on to units at the same time, or tells that they are over.
    pub(crate) fn hold(&self, units: &[(Part, Vec<Sequence>)], renew: bool, policies: &Policies) -> Call<'_> {
        let keys = self.keys(units.iter().map(|(part, _)| part));
        let mut encoded = Vec::new();
        for (part, sequences) in units {
            let lifetime_us = if renew { policies.rule(part.rule).window_us } else { 0 };
            encoded.extend_from_slice(&lifetime_us.to_le_bytes());
            encoded.extend_from_slice(&(sequences.len() as u32).to_le_bytes());
            for sequence in sequences {
                encoded.extend_from_slice(&self.holder);
                encoded.extend_from_slice(&sequence.to_le_bytes());
            }
        }
        (&self.hold, keys, vec![encoded.into()])
    }

    /// Changes counters by hand, and tells everybody.
    pub(crate) fn control(&self, request: &Request, control: Control) -> Call<'_> {
        let (verb, lifetime_ms) = match control {
            Control::Reset => ("reset", 0),
            Control::Block(duration) => ("block", i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).max(1)),
            Control::Unblock => ("unblock", 0),
        };
        let digits: Vec<u8> = request.parts.iter().flat_map(|part| part.identity.digits()).collect();
        let arguments = vec![verb.into(), lifetime_ms.into(), self.channel.clone().into(), digits.into()];
        (&self.control, self.keys(request.parts.iter()), arguments)
    }

    /// The keys of `parts`, cut from one allocation.
    pub(crate) fn keys<'a>(&self, parts: impl Iterator<Item = &'a Part>) -> Vec<Bytes> {
        let (mut text, mut ends) = (Vec::with_capacity(1024), Vec::with_capacity(16));
        for part in parts {
            text.extend_from_slice(self.lanes[part.identity.lane()].as_bytes());
            text.extend_from_slice(&part.identity.digits());
            text.extend_from_slice(self.suffixes[usize::from(part.rule)].as_bytes());
            ends.push(text.len());
        }
        let (text, mut start) = (Bytes::from(text), 0);
        let cut = |end| text.slice(std::mem::replace(&mut start, end)..end);
        ends.into_iter().map(cut).collect()
    }
}

fn encode_group(encoded: &mut Vec<u8>, group: &Group, policies: &Policies) {
    let request = &group.request;
    encoded.extend_from_slice(&group.waiting.to_le_bytes());
    encoded.extend_from_slice(&group.wanted.to_le_bytes());
    encoded.extend_from_slice(&request.cost.to_le_bytes());
    encoded.push(request.parts.len() as u8);
    let mut sequences = group.sequences.iter();
    for part in &request.parts {
        encoded.extend_from_slice(&part.rule.to_le_bytes());
        encoded.extend_from_slice(&part.identity.seed().to_le_bytes());
        if policies.rule(part.rule).is_concurrency() {
            encoded.extend_from_slice(&sequences.next().copied().unwrap_or(0).to_le_bytes());
        }
    }
}

/// Eight bytes that no other worker has: what the standard library seeds its maps with is random per process.
fn holder() -> [u8; 8] {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id()).to_le_bytes()
}

impl Answer {
    /// Takes the reply; `None` when it is not of the shape that `groups` ask for.
    pub(crate) fn parse(reply: Reply, groups: &[Group]) -> Option<Self> {
        let numbers = reply.into_bytes().ok()?;
        let expected: usize = groups.iter().map(|group| 1 + 2 * group.request.parts.len()).sum();
        if numbers.len() != NUMBER * (1 + expected) {
            return None;
        }
        let mut answer = Self { now_us: 0, numbers };
        answer.now_us = u64::try_from(answer.next()).unwrap_or(0);
        Some(answer)
    }

    /// The next number: how many were let through, then what is left and how long to wait for each policy of the group.
    pub(crate) fn next(&mut self) -> i64 {
        self.numbers.try_get_i64_le().unwrap_or(0)
    }
}
