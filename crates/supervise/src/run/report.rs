//! Puts together what `status` and `describe` show.

use std::time::Instant;

use telemetry::{Combine, Family, Series, Snapshot, Value};

use super::child::Child;
use super::{Reloads, Running};
use crate::fleet::{Part, Unit};
use crate::metrics;
use crate::status::{
    DESCRIBE_SCHEMA, DependencyStatus, Description, LastExit, ProcessStatus, SCHEMA, State, Status, SupervisorState,
    SupervisorStatus, WorkerStatus,
};

impl Running<'_> {
    /// From memory alone, so that a hung worker makes nobody wait.
    pub(super) fn status(&self) -> Status {
        let now = Instant::now();
        let state = if self.state.fleet.is_stopping() {
            SupervisorState::Draining
        } else if self.state.fleet.is_reloading() {
            SupervisorState::Reloading
        } else {
            SupervisorState::Running
        };
        Status {
            schema: SCHEMA.to_owned(),
            supervisor: SupervisorStatus {
                pid: nix::unistd::getpid().as_raw(),
                version: self.state.spec.version.clone(),
                uptime_seconds: seconds(self.state.started, now),
                generation: self.state.fleet.generation(),
                state,
                listen: self.state.sockets.addresses(self.state.fleet.generation()),
                workers_wanted: self.state.fleet.wanted(),
            },
            workers: (0..self.state.fleet.slots()).flat_map(|slot| self.slot_status(slot, now)).collect(),
            processes: (0..self.state.spec.processes.len() as u32)
                .map(|index| self.process_status(index, now))
                .collect(),
            host: self.host.status(),
            dependencies: self.dependencies(),
        }
    }

    /// Answers workers that were asked for the metrics of all: process ids with the numbers of their requests. Everything is added up
    /// once, however many have asked.
    pub(super) fn show_metrics(&mut self, questions: &[(i32, u64)]) {
        if questions.is_empty() {
            return;
        }
        let text = self.state.totals.text(&self.own_metrics());
        for &(pid, request) in questions {
            // Too long an answer is none: the worker says so.
            let Some(answer) = metrics::answer(request, &text) else { return };
            if let Some(child) = self.state.children.iter_mut().find(|child| child.pid == pid) {
                child.answer(&answer);
            }
        }
    }

    /// What the supervisor itself counts.
    fn own_metrics(&self) -> Snapshot {
        let states = State::ALL.map(|state| {
            let in_state = |slot: &u32| self.state.fleet.state(Unit::Worker(*slot)) == state;
            let count = (0..self.state.fleet.wanted()).filter(in_state).count();
            series("state", state.name(), Value::Gauge(count as f64))
        });
        let replaced = self.state.fleet.replaced();
        let restarts = replaced.map(|(reason, count)| series("reason", reason.label(), Value::Counter(count as f64)));
        let Reloads { done, rolled_back, refused } = self.state.reloads;
        let results = [("done", done), ("rolled_back", rolled_back), ("refused", refused)];
        let reloads = results.map(|(result, count)| series("result", result, Value::Counter(count as f64)));
        Snapshot {
            families: vec![
                family("bellwether_reloads_total", "Reloads, by how they ended.", reloads.into()),
                family("bellwether_worker_restarts_total", "Workers replaced, by the reason.", restarts.collect()),
                family("bellwether_workers", "Slots, by the state of the worker that counts.", states.into()),
            ],
        }
    }

    /// One line for the service manager.
    pub(super) fn summary(&self) -> String {
        let (wanted, generation) = (self.state.fleet.wanted(), self.state.fleet.generation());
        let is_ready = |slot: &u32| self.state.fleet.state(Unit::Worker(*slot)) == State::Ready;
        let ready = (0..wanted).filter(is_ready).count();
        let doing = if self.state.fleet.is_stopping() {
            "Ending"
        } else if self.state.fleet.is_reloading() {
            "Reloading"
        } else {
            "Running"
        };
        format!("{doing}, {ready} of {wanted} workers ready, generation {generation}")
    }

    /// The worker in `slot` in full, if there is such a slot.
    pub(super) fn description(&self, slot: u32) -> Option<Description> {
        let now = Instant::now();
        let worker = self.slot_status(slot, now).into_iter().next()?;
        let child = self.serving(Unit::Worker(slot));
        Some(Description {
            schema: DESCRIBE_SCHEMA.to_owned(),
            worker,
            command: self.state.launcher.command(self.state.fleet.generation_of(Unit::Worker(slot))),
            executable: self.state.launcher.executable(self.state.fleet.generation_of(Unit::Worker(slot))),
            user: self.state.spec.user.clone(),
            started_at: child.map(|child| format!("{:.0}", child.started_at)),
            listen: self.state.sockets.addresses(self.state.fleet.generation_of(Unit::Worker(slot))),
            exits: self.exits_of(slot).cloned().collect(),
            metrics: child.map(|child| self.state.totals.of_worker(child.pid)).unwrap_or_default(),
        })
    }

    /// The one that counts, then its successor, then those that are about to end. A slot that is not wanted is shown for as
    /// long as it has a process.
    fn slot_status(&self, slot: u32, now: Instant) -> Vec<WorkerStatus> {
        let unit = Unit::Worker(slot);
        let mut others = Vec::new();
        for child in self.state.children.iter().filter(|child| child.unit == unit) {
            match self.state.fleet.part(child.pid) {
                Some((Part::Serving, _)) | None => {}
                Some((_, state)) => others.push(self.worker_status(slot, Some(child), state, now)),
            }
        }
        let serving = self.serving(unit);
        if serving.is_none() && others.len() == 1 && self.state.fleet.state(unit) == State::Draining {
            return others;
        }
        let is_shown = slot < self.state.fleet.wanted() || serving.is_some();
        let first = is_shown.then(|| self.worker_status(slot, serving, self.state.fleet.state(unit), now));
        first.into_iter().chain(others).collect()
    }

    fn worker_status(&self, slot: u32, child: Option<&Child>, state: State, now: Instant) -> WorkerStatus {
        let unit = Unit::Worker(slot);
        let usage = child.map(|child| child.sampler.usage()).unwrap_or_default();
        let statistics = child.and_then(|child| child.statistics);
        WorkerStatus {
            id: slot,
            pid: child.map(|child| child.pid),
            generation: child.map_or_else(|| self.state.fleet.generation_of(unit), |child| child.generation),
            state,
            restarts: self.state.fleet.restarts(unit),
            uptime_seconds: child.map(|child| seconds(child.started, now)),
            cpu_percent: usage.cpu_percent.map(rounded),
            rss_bytes: usage.rss_bytes,
            connections: statistics.map(|statistics| statistics.connections),
            requests_total: statistics.map(|statistics| statistics.requests_total),
            requests_per_second: statistics.map(|statistics| rounded(statistics.requests_per_second)),
            p99_seconds: statistics.and_then(|statistics| statistics.p99_seconds),
            loop_lag_seconds: statistics.map(|statistics| statistics.loop_lag_seconds),
            last_exit: self.exits_of(slot).next_back().cloned(),
            reason: self.state.fleet.reason(unit).map(str::to_owned),
        }
    }

    fn exits_of(&self, slot: u32) -> impl DoubleEndedIterator<Item = &LastExit> {
        self.state.exits.get(slot as usize).into_iter().flatten()
    }

    fn process_status(&self, index: u32, now: Instant) -> ProcessStatus {
        let unit = Unit::Process(index);
        let child = self.state.children.iter().find(|child| child.unit == unit);
        ProcessStatus {
            name: self.state.fleet.name(unit),
            pid: child.map(|child| child.pid),
            state: self.state.fleet.state(unit),
            restarts: self.state.fleet.restarts(unit),
            uptime_seconds: child.map(|child| seconds(child.started, now)),
        }
    }

    /// What the workers that serve have told, by name.
    fn dependencies(&self) -> Vec<DependencyStatus> {
        let mut all: Vec<DependencyStatus> = Vec::new();
        let serves = |child: &&Child| matches!(self.state.fleet.part(child.pid), Some((Part::Serving, _)));
        for told in self.state.children.iter().filter(serves).flat_map(|child| &child.dependencies) {
            let reached = u32::from(told.works);
            match all.iter_mut().find(|known| known.name == told.name) {
                Some(known) => {
                    known.reached_by += reached;
                    known.workers += 1;
                }
                None => all.push(DependencyStatus {
                    name: told.name.clone(),
                    reached_by: reached,
                    workers: 1,
                    detail: told.detail.clone(),
                }),
            }
        }
        all
    }

    fn serving(&self, unit: Unit) -> Option<&Child> {
        let serves = |child: &&Child| matches!(self.state.fleet.part(child.pid), Some((Part::Serving, _)));
        self.state.children.iter().filter(|child| child.unit == unit).find(serves)
    }
}

fn series(label: &str, value: &str, measured: Value) -> Series {
    Series { labels: vec![(label.to_owned(), value.to_owned())], value: measured }
}

fn family(name: &str, help: &str, series: Vec<Series>) -> Family {
    Family { name: name.to_owned(), help: help.to_owned(), combine: Combine::Sum, series }
}

/// To a tenth, which is as much as anybody reads.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn seconds(since: Instant, now: Instant) -> f64 {
    rounded(now.saturating_duration_since(since).as_secs_f64())
}
