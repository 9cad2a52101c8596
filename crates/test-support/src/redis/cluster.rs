//! A Redis Cluster of the test's own.

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

    /// `redis-cluster://` with the addresses of two of the nodes, from which the third is found.
    pub fn url(&self) -> String {
        format!("redis-cluster://{},{}", self.nodes[0].address(), self.nodes[1].address())
    }
}
