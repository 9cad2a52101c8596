//! A Redis Cluster of the test's own.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::{Redis, eventually};

/// How long the nodes may take to agree, on a machine that is busy compiling.
const AGREE: Duration = Duration::from_secs(30);

/// Three masters that hold all slots, without replicas.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts the nodes and waits until all of them know the whole cluster.
    ///
    /// # Panics
    /// As [`Redis::start`] does.
    pub fn start() -> Self {
        let nodes: Vec<Redis> = (0..3).map(|_| Redis::start_with(&["--cluster-enabled", "yes"])).collect();
        for (node, slots) in nodes.iter().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]]) {
            node.command(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]);
            node.command(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].address().port().to_string()]);
        }
        for node in &nodes {
            eventually(AGREE, || {
                let info = node.command(&["CLUSTER", "INFO"]);
                ["cluster_state:ok", "cluster_known_nodes:3"].iter().all(|line| info.contains(line))
            });
        }
        Self { nodes }
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// Moves a hash slot with its keys from the node that has it to another, as a rebalance does; nothing if it is there.
    ///
    /// # Panics
    /// When a node refuses.
    pub fn move_slot(&self, slot: u16, to: usize) {
        let ids: Vec<String> = self.nodes.iter().map(|node| node.command(&["CLUSTER", "MYID"])).collect();
        let (slot, target) = (slot.to_string(), &self.nodes[to]);
        let from = (0..self.nodes.len()).find(|&node| self.has_slot(node, &slot)).expect("a node has the slot");
        if from == to {
            return;
        }
        target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]]);
        self.nodes[from].command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]);
        let port = target.address().port().to_string();
        loop {
            let keys = self.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            if keys.is_empty() {
                break;
            }
            for key in keys.lines() {
                self.nodes[from].command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
            }
        }
        // The new owner first: nobody may be sent back to a node that has given the slot away.
        for node in [to].into_iter().chain((0..self.nodes.len()).filter(|&node| node != to)) {
            self.nodes[node].command(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]);
        }
        eventually(AGREE, || self.agrees());
    }

    /// Whether all nodes say the same of who has which slots, and since when.
    fn agrees(&self) -> bool {
        let views = self.nodes.iter().map(|node| {
            let lines = node.command(&["CLUSTER", "NODES"]);
            let known = |line: &str| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                [&[fields[0], fields[6]], &fields[8..]].concat().join(" ")
            };
            lines.lines().map(known).collect::<BTreeSet<_>>()
        });
        let views: BTreeSet<_> = views.collect();
        views.len() == 1
    }

    fn has_slot(&self, node: usize, slot: &str) -> bool {
        let lines = self.nodes[node].command(&["CLUSTER", "NODES"]);
        let own = lines.lines().find(|line| line.contains("myself")).unwrap_or_default();
        let slot: u16 = slot.parse().expect("a slot is a number");
        let ranges = own.split_whitespace().skip(8).filter(|range| !range.starts_with('['));
        ranges.map(bounds).any(|(first, last)| (first..=last).contains(&slot))
    }

    /// `redis-cluster://` with the addresses of two of the nodes, from which the third is found.
    pub fn url(&self) -> String {
        format!("redis-cluster://{},{}", self.nodes[0].address(), self.nodes[1].address())
    }
}

/// `5` or `5-9`, as nodes list their slots.
fn bounds(range: &str) -> (u16, u16) {
    let number = |text: &str| text.parse().expect("slots are numbers");
    match range.split_once('-') {
        Some((first, last)) => (number(first), number(last)),
        None => (number(range), number(range)),
    }
}
