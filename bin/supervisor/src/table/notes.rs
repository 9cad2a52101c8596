//! The lines beside a table: the supervisor, its machine, what the workers depend on, and whatever is not well.

use std::collections::BTreeSet;

use supervise::status::{
    DependencyStatus, HostStatus, ProcessStatus, State, Status, SupervisorState, SupervisorStatus, WorkerStatus,
};

use crate::figures::{duration, folded, one_line, size, state_color, supervisor_state_name};
use crate::output::Color;

/// Of the lines of a note after its first.
const INDENT: usize = 2;

/// Parts that belong together, and how alarming they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) color: Option<Color>,
    parts: Vec<String>,
}

impl Note {
    fn new(color: Option<Color>, parts: Vec<String>) -> Self {
        Self { color, parts }
    }

    /// The parts with commas between them, on as many lines as the width asks for; those after the first are indented.
    pub(crate) fn lines(&self, width: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for part in &self.parts {
            let length = part.chars().count();
            match lines.last_mut() {
                Some(line) if line.chars().count() + 2 + length <= width => {
                    line.push_str(", ");
                    line.push_str(part);
                }
                Some(_) => lines.extend(indented(part, width)),
                None if length <= width => lines.push(part.clone()),
                None => lines.extend(folded(part, width, INDENT)),
            }
        }
        lines
    }
}

fn indented(part: &str, width: usize) -> Vec<String> {
    let lines = folded(part, width.saturating_sub(INDENT), 0);
    lines.into_iter().map(|line| format!("{:INDENT$}{line}", "")).collect()
}

/// What is said of everything but the workers: the supervisor, the host, each dependency, each process.
pub(crate) fn surroundings(status: &Status) -> Vec<Note> {
    let mut notes = vec![summary(status)];
    notes.extend(host(&status.host));
    notes.extend(dependencies(&status.dependencies));
    notes.extend(status.processes.iter().map(process));
    notes
}

/// Why workers are broken or wait, as far as it is `wanted`.
pub(crate) fn reasons(status: &Status, wanted: impl Fn(&str) -> bool) -> Vec<Note> {
    let with_reason = status.workers.iter().filter_map(|worker| Some((worker, worker.reason.as_deref()?)));
    with_reason.filter(|(_, reason)| wanted(reason)).map(|(worker, reason)| reason_note(worker, reason)).collect()
}

/// How many slots have a worker that serves; one that is being replaced has two workers and counts once.
pub(crate) fn ready_slots(status: &Status) -> usize {
    let ready = status.workers.iter().filter(|worker| worker.state == State::Ready);
    ready.map(|worker| worker.id).collect::<BTreeSet<_>>().len()
}

fn summary(status: &Status) -> Note {
    let SupervisorStatus { pid, version, uptime_seconds, generation, state, listen, workers_wanted } =
        &status.supervisor;
    let color = match state {
        SupervisorState::Running => None,
        SupervisorState::Reloading | SupervisorState::Draining => Some(Color::Yellow),
    };
    let parts = vec![
        format!("supervisor {version} {}", supervisor_state_name(*state)),
        format!("pid {pid}"),
        format!("up {}", duration(*uptime_seconds)),
        format!("generation {generation}"),
        format!("{} of {workers_wanted} workers ready", ready_slots(status)),
        format!("at {}", listen.join(", ")),
    ];
    Note::new(color, parts)
}

fn host(host: &HostStatus) -> Option<Note> {
    if host.name.is_empty() {
        return None;
    }
    let mut parts =
        vec![format!("host {}", host.name), format!("{} cpu{}", host.cpus, if host.cpus == 1 { "" } else { "s" })];
    parts.extend(host.load.map(|[one, five, fifteen]| format!("load {one:.2} {five:.2} {fifteen:.2}")));
    if let (Some(total), Some(available)) = (host.memory_bytes, host.memory_available_bytes) {
        parts.push(format!("memory {} of {} used", size(total.saturating_sub(available)), size(total)));
    }
    Some(Note::new(None, parts))
}

fn dependencies(dependencies: &[DependencyStatus]) -> impl Iterator<Item = Note> {
    let longest = dependencies.iter().map(|dependency| dependency.name.chars().count()).max().unwrap_or_default();
    dependencies.iter().map(move |DependencyStatus { name, reached_by, workers, detail }| {
        let color = match reached_by {
            0 => Some(Color::Red),
            reached if reached < workers => Some(Color::Yellow),
            _ => None,
        };
        let mut parts = vec![format!("{name:longest$}  reached by {reached_by} of {workers} workers")];
        parts.extend((!detail.is_empty()).then(|| detail.clone()));
        Note::new(color, parts)
    })
}

fn process(process: &ProcessStatus) -> Note {
    let mut parts = vec![format!("process {} {}", process.name, process.state.name())];
    parts.extend(process.pid.map(|pid| format!("pid {pid}")));
    parts.extend(process.uptime_seconds.map(|seconds| format!("up {}", duration(seconds))));
    parts.push(format!("{} restarts", process.restarts));
    Note::new((process.state != State::Ready).then(|| state_color(process.state)), parts)
}

fn reason_note(worker: &WorkerStatus, reason: &str) -> Note {
    let state = match worker.state {
        State::Backoff => "waiting",
        state => state.name(),
    };
    let sentence = format!("w{} is {state}: {}", worker.id, one_line(reason));
    Note::new(Some(state_color(worker.state)), vec![sentence])
}
