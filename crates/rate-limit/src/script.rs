//! Talking to the script: keys, arguments and what it answers.

use redis_store::{Arg, Bytes, Reply, Script};

use crate::{identity::LANES, policies::Policies, queue::Group};

/// The script with what is the same in every call.
pub(crate) struct CheckScript {
    pub(crate) script: Script,
    /// Limits and windows, encoded.
    policies: Bytes,
    /// `prefix:rl:{lane}:` of every lane.
    lanes: Vec<String>,
    /// `:name` of every policy.
    suffixes: Vec<String>,
}

/// What Redis answered.
pub(crate) struct Answer {
    /// Redis's clock, in microseconds since the Unix epoch.
    pub(crate) now_us: u64,
    numbers: std::vec::IntoIter<Reply>,
}

impl CheckScript {
    pub(crate) fn new(prefix: &str, policies: &Policies) -> Self {
        let numbers = policies.iter().flat_map(|policy| [policy.limit, policy.window_us]);
        Self {
            script: Script::new(include_str!("check.lua")),
            policies: numbers.flat_map(u64::to_le_bytes).collect(),
            lanes: (0..LANES).map(|lane| format!("{prefix}:rl:{{{lane}}}:")).collect(),
            suffixes: policies.iter().map(|policy| format!(":{}", policy.name)).collect(),
        }
    }

    /// The keys of `groups`, cut from one allocation.
    pub(crate) fn keys(&self, groups: &[Group]) -> Vec<Bytes> {
        let mut text = Vec::with_capacity(groups.len() * 64);
        let mut ends = Vec::with_capacity(groups.len());
        for group in groups {
            let (lane, digits) = (&self.lanes[group.identity.lane()], group.identity.digits());
            for policy in group.set.iter() {
                text.extend_from_slice(lane.as_bytes());
                text.extend_from_slice(&digits);
                text.extend_from_slice(self.suffixes[usize::from(policy)].as_bytes());
                ends.push(text.len());
            }
        }
        let (text, mut start) = (Bytes::from(text), 0);
        let cut = |end| text.slice(std::mem::replace(&mut start, end)..end);
        ends.into_iter().map(cut).collect()
    }

    pub(crate) fn arguments(&self, groups: &[Group]) -> [Arg; 2] {
        let mut encoded = Vec::with_capacity(groups.len() * 10);
        for group in groups {
            encoded.extend_from_slice(&group.waiting.to_le_bytes());
            encoded.extend_from_slice(&group.identity.seed().to_le_bytes());
            encoded.push(group.set.len() as u8);
            encoded.extend(group.set.iter());
        }
        [self.policies.clone().into(), encoded.into()]
    }
}

impl Answer {
    /// Takes the reply; `None` when it is not of the shape that `groups` ask for.
    pub(crate) fn parse(reply: Reply, groups: &[Group]) -> Option<Self> {
        let numbers = reply.into_array().ok()?;
        let expected: usize = groups.iter().map(|group| 1 + 2 * group.set.len()).sum();
        let are_integers = numbers.iter().all(|number| matches!(number, Reply::Integer(_)));
        if numbers.len() != 1 + expected || !are_integers {
            return None;
        }
        let mut answer = Self { now_us: 0, numbers: numbers.into_iter() };
        answer.now_us = answer.next();
        Some(answer)
    }

    /// The next number: admitted, then left and the end of the window for each policy of the group.
    pub(crate) fn next(&mut self) -> u64 {
        match self.numbers.next() {
            Some(Reply::Integer(number)) => u64::try_from(number).unwrap_or(0),
            _ => 0,
        }
    }
}
