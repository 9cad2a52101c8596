//! What clients ask for, and what becomes of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Running;
use super::start::rules;
use crate::clients::{Asked, ClientId};
use crate::control::{LogsWanted, Reply, Request, Scale};
use crate::fleet::{Event, ReloadFailure, Unit};
use crate::{Program, Spec};

/// More workers than this are a mistake.
const MOST_WORKERS: u32 = 1024;

/// How long the log-writer may take to repeat what a failed worker wrote.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(500);

/// How many of its last lines are repeated.
const LAST_WORDS: u32 = 20;

/// Exit codes of commands.
pub(super) mod code {
    pub(in crate::run) const FAILED: u8 = 1;
    pub(in crate::run) const USAGE: u8 = 2;
    pub(in crate::run) const ROLLED_BACK: u8 = 4;
    pub(in crate::run) const BUSY: u8 = 75;
    pub(in crate::run) const MISCONFIGURED: u8 = 78;
}

/// What was in force before a reload.
pub(super) struct Previous {
    spec: Spec,
    binary: Option<PathBuf>,
}

/// What a client is told of a reload that failed, once the worker's last words have come or have not.
pub(super) struct Farewell {
    client: ClientId,
    message: String,
    pid: i32,
    pub(super) deadline: Instant,
}

impl Running<'_> {
    pub(super) fn serve_clients(&mut self, now: Instant) {
        for asked in self.state.clients.turn(now) {
            match asked {
                Asked::Request(client, request) => self.serve(client, request),
                Asked::Nonsense(client) => {
                    let message = format!("supervisor {} does not know this request", self.state.spec.version);
                    self.state.clients.reply(client, &Reply::Failed { code: code::USAGE, message });
                }
                Asked::Refused(peer) => {
                    self.state.log.line(&format!("audit: {peer} was refused at the control socket"))
                }
            }
        }
    }

    fn serve(&mut self, client: ClientId, request: Request) {
        match request {
            Request::Ping | Request::Status | Request::Describe { .. } if self.state.clients.is_gone(client) => {}
            Request::Ping => {
                let pong =
                    Reply::Pong { pid: nix::unistd::getpid().as_raw(), version: self.state.spec.version.clone() };
                self.state.clients.reply(client, &pong);
            }
            Request::Status => {
                let status = Reply::Status(Box::new(self.status()));
                self.state.clients.reply(client, &status);
            }
            Request::Describe { id } => {
                let reply = match self.description(id) {
                    Some(description) => Reply::Description(Box::new(description)),
                    None => Reply::Failed { code: code::FAILED, message: format!("there is no worker w{id}") },
                };
                self.state.clients.reply(client, &reply);
            }
            Request::Logs(wanted) => self.show_log(client, &wanted),
            request => self.change(client, request),
        }
    }

    /// The log-writer answers, because only it has the lines.
    fn show_log(&mut self, client: ClientId, wanted: &LogsWanted) {
        if let Some(name) = wanted.source.as_deref().filter(|name| !self.writes_log(name)) {
            return self.refuse(client, code::FAILED, &format!("there is neither a worker nor a process {name}"));
        }
        match self.state.clients.connection(client).map(|connection| self.state.log.hand_over(connection, wanted)) {
            Some(Ok(())) => self.state.clients.forget(client),
            _ => self.refuse(client, code::BUSY, "the log cannot be read at the moment, try again"),
        }
    }

    fn writes_log(&self, name: &str) -> bool {
        let workers = (0..self.state.fleet.slots()).map(Unit::Worker);
        let processes = (0..self.state.spec.processes.len() as u32).map(Unit::Process);
        name == "supervisor" || workers.chain(processes).any(|unit| self.state.fleet.name(unit) == name)
    }

    /// Requests that change something are told to the log with who asked.
    fn change(&mut self, client: ClientId, request: Request) {
        if let Some(peer) = self.state.clients.peer(client) {
            self.state.log.line(&format!("audit: {peer} asks for {}", in_words(&request)));
        }
        self.state.clients.keep(client);
        match request {
            Request::Stop { now: true } => {
                self.say("told to end at once");
                self.happen(Event::StopNow);
            }
            Request::Stop { now: false } => self.stop("told to stop"),
            _ if self.state.fleet.is_stopping() => self.refuse(client, code::BUSY, "the supervisor is about to end"),
            Request::Reload { binary } => self.reload(Some(client), binary),
            Request::Scale(scale) => self.scale(Some(client), scale),
            Request::Restart { .. } if self.is_reloading() => self.refuse(client, code::BUSY, "a reload is under way"),
            Request::Restart { id, hard } => {
                self.happen(Event::Restart { ticket: Some(client.0), slot: id, hard });
            }
            Request::Upgrade => self.begin_upgrade(Some(client)),
            Request::Ping | Request::Status | Request::Describe { .. } | Request::Logs(_) => {}
        }
    }

    pub(super) fn scale(&mut self, client: Option<ClientId>, scale: Scale) {
        let to = match scale {
            Scale::To(count) => count,
            Scale::By(difference) => self.state.fleet.wanted().saturating_add_signed(difference),
        };
        if self.is_reloading() {
            self.refuse_or_say(client, code::BUSY, "a reload is under way; the number of workers stays");
        } else if to > MOST_WORKERS {
            self.refuse_or_say(client, code::USAGE, &format!("there are at most {MOST_WORKERS} workers"));
        } else if let Err(error) = self.state.sockets.grow(to) {
            self.refuse_or_say(client, error.exit_code(), &error.to_string());
        } else {
            self.happen(Event::Scale { ticket: client.map(|client| client.0), scale });
        }
    }

    /// Signals that come while a reload is under way are one more reload, whatever their number.
    pub(super) fn reload_by_signal(&mut self) {
        if self.state.fleet.is_stopping() {
            return;
        }
        if self.is_reloading() {
            self.reload_again = true;
            return;
        }
        self.reload(None, None);
    }

    fn reload(&mut self, client: Option<ClientId>, binary: Option<PathBuf>) {
        if self.is_reloading() {
            return self.refuse_or_say(client, code::BUSY, "a reload is under way");
        }
        if self.state.fleet.is_announced() {
            self.manager.reloading();
        }
        self.begin_reload(client, binary);
        if !self.is_reloading() {
            self.state.reloads.refused += 1;
            // It was refused, and a service manager that has asked for it waits for its end.
            self.tell_manager_of_end_of_reload();
        }
    }

    /// Validates everything that can be validated before anything changes.
    fn begin_reload(&mut self, client: Option<ClientId>, binary: Option<PathBuf>) {
        if binary.is_some() && matches!(self.state.spec.program, Program::Foreign { .. }) {
            return self.refuse_or_say(client, code::USAGE, "only our own workers have another executable");
        }
        let binary = binary.or_else(|| self.state.binary.clone());
        let mut spec = match (self.respec)(binary.as_deref()) {
            Ok(spec) => spec,
            Err(problems) => return self.refuse_or_say(client, code::MISCONFIGURED, &problems),
        };
        spec.workers = spec.workers.max(1);
        if spec.workers > MOST_WORKERS.max(self.state.spec.workers) {
            return self.refuse_or_say(
                client,
                code::MISCONFIGURED,
                &format!("there are at most {MOST_WORKERS} workers"),
            );
        }
        self.keep_until_next_start(&mut spec);
        let generation = self.state.fleet.next_generation();
        let state = &mut self.state;
        let prepared = state
            .sockets
            .prepare(generation, &spec.listen)
            .and_then(|()| state.launcher.prepare(generation, &spec))
            .and_then(|()| state.sockets.grow(spec.workers));
        if let Err(error) = prepared {
            self.keep_only_what_serves();
            return self.refuse_or_say(client, error.exit_code(), &error.to_string());
        }
        if let Err(error) = self.state.sockets.steer(self.state.fleet.steered()) {
            self.say(&format!("connections cannot be steered to the ready workers: {error}"));
        }
        let rules = Box::new(rules(&spec));
        let spec = std::mem::replace(&mut self.state.spec, spec);
        self.previous = Some(Previous { spec, binary: std::mem::replace(&mut self.state.binary, binary) });
        self.happen(Event::Reload { ticket: client.map(|client| client.0), rules });
    }

    /// A reload is about workers. What concerns the supervisor and its other processes stays as it is, and somebody should know.
    fn keep_until_next_start(&mut self, spec: &mut Spec) {
        let current = &self.state.spec;
        let differences = [
            ("supervisor.process", spec.processes != current.processes),
            ("supervisor.admin_listen", spec.admin_listen != current.admin_listen),
            ("supervisor.state_dir", spec.control_socket != current.control_socket),
            ("log.files", spec.log_files != current.log_files),
            ("log.format", spec.log_json != current.log_json),
        ];
        spec.processes.clone_from(&current.processes);
        spec.admin_listen = current.admin_listen;
        spec.control_socket.clone_from(&current.control_socket);
        spec.log_files.clone_from(&current.log_files);
        spec.log_json = current.log_json;
        let changed: Vec<_> = differences.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
        if !changed.is_empty() {
            self.say(&format!("takes effect at the next start only: {}", changed.join(", ")));
        }
    }

    pub(super) fn end_reload(&mut self, client: Option<ClientId>, failure: Option<ReloadFailure>) {
        match failure {
            Some(_) => self.state.reloads.rolled_back += 1,
            None => self.state.reloads.done += 1,
        }
        let previous = self.previous.take();
        if let (Some(previous), true) = (previous, failure.is_some()) {
            (self.state.spec, self.state.binary) = (previous.spec, previous.binary);
        }
        self.keep_only_what_serves();
        self.plan_schedule();
        self.tell_manager_of_end_of_reload();
        match (client, failure) {
            (Some(client), None) => self.state.clients.conclude(client, &Reply::Done),
            (Some(client), Some(ReloadFailure { message, pid: Some(pid) })) => {
                let deadline = Instant::now() + LAST_WORDS_WITHIN;
                self.state.log.tail(pid, LAST_WORDS);
                self.farewell = Some(Farewell { client, message, pid, deadline });
            }
            (Some(client), Some(ReloadFailure { message, pid: None })) => {
                self.refuse(client, code::ROLLED_BACK, &message);
            }
            (None, _) => {}
        }
    }

    fn keep_only_what_serves(&mut self) {
        let generation = self.state.fleet.generation();
        self.state.sockets.keep_only(generation);
        self.state.launcher.keep_only(generation);
    }

    /// A failed reload is told with what its worker wrote last.
    pub(super) fn hear_last_words(&mut self) {
        let now = Instant::now();
        for tail in self.state.log.take_answers() {
            if let Some(farewell) = self.farewell.as_mut().filter(|farewell| farewell.pid == tail.pid) {
                for line in &tail.lines {
                    farewell.message.push_str("\n  ");
                    farewell.message.push_str(line);
                }
                farewell.deadline = now;
            }
        }
    }

    /// Tells a client how its reload failed, with what the worker wrote last.
    pub(super) fn say_farewell(&mut self, now: Instant) {
        if self.farewell.as_ref().is_none_or(|farewell| now < farewell.deadline) {
            return;
        }
        self.end_farewell();
    }

    /// Tells what there is to tell by now.
    pub(super) fn end_farewell(&mut self) {
        if let Some(Farewell { client, message, .. }) = self.farewell.take() {
            self.refuse(client, code::ROLLED_BACK, &message);
        }
    }

    /// A reload is over when its client knows.
    pub(super) fn is_reloading(&self) -> bool {
        self.state.fleet.is_reloading() || self.farewell.is_some()
    }

    pub(super) fn reload_again_if_wanted(&mut self) {
        if self.reload_again && !self.is_reloading() {
            self.reload_again = false;
            self.reload_by_signal();
        }
    }

    pub(super) fn refuse_or_say(&mut self, client: Option<ClientId>, code: u8, message: &str) {
        match client {
            Some(client) => self.refuse(client, code, message),
            None => self.say(message),
        }
    }

    fn refuse(&mut self, client: ClientId, code: u8, message: &str) {
        self.state.clients.conclude(client, &Reply::Failed { code, message: message.to_owned() });
    }
}

fn in_words(request: &Request) -> String {
    match request {
        Request::Stop { now: false } => "a stop".to_owned(),
        Request::Stop { now: true } => "a stop at once".to_owned(),
        Request::Reload { binary: None } => "a reload".to_owned(),
        // Quoted, lest a path with a line feed write a line of the audit itself.
        Request::Reload { binary: Some(path) } => format!("a reload with {path:?}"),
        Request::Scale(Scale::To(count)) => format!("{count} workers"),
        Request::Scale(Scale::By(difference)) => format!("{difference:+} workers"),
        Request::Restart { id, hard } => {
            let which = id.map_or_else(|| "all workers".to_owned(), |id| format!("w{id}"));
            format!("a {}restart of {which}", if *hard { "hard " } else { "" })
        }
        Request::Upgrade => "an upgrade".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_one_line_of_the_audit() {
        let path = PathBuf::from("/x\nsupervisor| audit: uid 0 (pid 1) asks for a stop\u{1b}[2J");
        let words = in_words(&Request::Reload { binary: Some(path) });
        assert!(words.starts_with("a reload with \"/x\\nsupervisor|"), "{words}");
        assert!(!words.contains(char::is_control), "{words}");
    }
}
