//! Puts together what `status` shows.

use std::time::Instant;

use super::Running;
use super::child::Child;
use crate::fleet::Unit;
use crate::status::{HostStatus, ProcessStatus, SCHEMA, Status, SupervisorState, SupervisorStatus, WorkerStatus};

impl<F> Running<F> {
    /// From memory alone, so that a hung worker makes nobody wait.
    pub(super) fn status(&self) -> Status {
        let now = Instant::now();
        let state = if self.fleet.is_stopping() { SupervisorState::Draining } else { SupervisorState::Running };
        Status {
            schema: SCHEMA.to_owned(),
            supervisor: SupervisorStatus {
                pid: nix::unistd::getpid().as_raw(),
                version: self.spec.version.clone(),
                uptime_seconds: seconds(self.started, now),
                generation: self.fleet.generation(),
                state,
                listen: self.addresses.clone(),
                workers_wanted: self.spec.workers,
            },
            workers: (0..self.spec.workers).map(|slot| self.worker_status(slot, now)).collect(),
            processes: (0..self.spec.processes.len() as u32).map(|index| self.process_status(index, now)).collect(),
            host: HostStatus::default(),
            dependencies: Vec::new(),
        }
    }

    fn worker_status(&self, slot: u32, now: Instant) -> WorkerStatus {
        let unit = Unit::Worker(slot);
        let child = self.child(unit);
        let usage = child.map(|child| child.sampler.usage()).unwrap_or_default();
        let statistics = child.and_then(|child| child.statistics);
        WorkerStatus {
            id: slot,
            pid: child.map(|child| child.pid),
            generation: child.map_or(self.fleet.generation(), |child| child.generation),
            state: self.fleet.state(unit),
            restarts: self.fleet.restarts(unit),
            uptime_seconds: child.map(|child| seconds(child.started, now)),
            cpu_percent: usage.cpu_percent.map(rounded),
            rss_bytes: usage.rss_bytes,
            connections: statistics.map(|statistics| statistics.connections),
            requests_total: statistics.map(|statistics| statistics.requests_total),
            requests_per_second: statistics.map(|statistics| rounded(statistics.requests_per_second)),
            p99_seconds: statistics.and_then(|statistics| statistics.p99_seconds),
            loop_lag_seconds: statistics.map(|statistics| statistics.loop_lag_seconds),
            last_exit: self.last_exits[slot as usize].clone(),
            reason: None,
        }
    }

    fn process_status(&self, index: u32, now: Instant) -> ProcessStatus {
        let unit = Unit::Process(index);
        let child = self.child(unit);
        ProcessStatus {
            name: self.fleet.name(unit),
            pid: child.map(|child| child.pid),
            state: self.fleet.state(unit),
            restarts: self.fleet.restarts(unit),
            uptime_seconds: child.map(|child| seconds(child.started, now)),
        }
    }

    fn child(&self, unit: Unit) -> Option<&Child> {
        self.children.iter().find(|child| child.unit == unit)
    }
}

/// To a tenth, which is as much as anybody reads.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn seconds(since: Instant, now: Instant) -> f64 {
    rounded(now.saturating_duration_since(since).as_secs_f64())
}
