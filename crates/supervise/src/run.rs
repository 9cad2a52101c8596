//! The supervisor's life: one thread, one `poll(2)`, nothing that blocks.
//!
//! It translates the world into the fleet's events and the fleet's actions into system calls, and decides nothing itself.

mod child;
mod launcher;
mod report;
mod signals;

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use self::child::Child;
use self::launcher::Launcher;
use self::signals::Signals;
use crate::child::sys;
use crate::clients::{ClientId, Clients};
use crate::control::{Reply, Request};
use crate::fleet::{Action, Event, Exit, Fleet, Readiness, Rules, Unit};
use crate::frame::{DrainKind, ToWorker};
use crate::log_writer::LogWriter;
use crate::sockets::Sockets;
use crate::stats;
use crate::status::{LastExit, Status};
use crate::{Error, Outcome, Program, Spec};

/// How often processor time and memory are looked up.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What the log-writer gets to write the last lines.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(1200);

/// A supervisor that holds its sockets and locks and has started nothing yet.
#[derive(Debug)]
pub struct Supervisor {
    spec: Spec,
    launcher: Launcher,
    sockets: Sockets,
    clients: Clients,
}

impl Supervisor {
    /// Takes the control socket and all addresses and finds all programs, or fails without a trace.
    ///
    /// Connections queue from now on. Ordinary children may be run before [`Supervisor::run`]; they inherit nothing.
    pub fn bind(mut spec: Spec) -> Result<Self, Error> {
        spec.workers = spec.workers.max(1);
        raise_descriptor_limit();
        let launcher = Launcher::new(&spec)?;
        let clients = Clients::bind(&spec.control_socket)?;
        let sockets = match Sockets::bind(&spec) {
            Ok(sockets) => sockets,
            Err(error) => {
                clients.abandon();
                return Err(error);
            }
        };
        Ok(Self { spec, launcher, sockets, clients })
    }

    /// The addresses as they were bound, so never with port 0, in the order of [`Spec::listen`].
    pub fn addresses(&self) -> Vec<String> {
        self.sockets.addresses()
    }

    /// The address of the admin listener as it was bound.
    pub fn admin_address(&self) -> Option<String> {
        self.sockets.admin_address().map(|address| address.to_string())
    }

    /// Starts everything, keeps it alive, and returns when a signal or a command has ended it and nothing runs any more.
    ///
    /// Call it from the only thread of the process: it forks. Standard output belongs to the log-writer from now on; what
    /// `on_ready` returns, once all workers are ready for the first time, is written there as it is.
    pub fn run(self, on_ready: impl FnOnce(&Status) -> String) -> Result<Outcome, Error> {
        let now = Instant::now();
        let log = LogWriter::start(now).map_err(|source| Error::System { what: "start the log-writer", source })?;
        let signals = Signals::listen().map_err(|source| Error::System { what: "listen to signals", source })?;
        let fleet = Fleet::new(rules(&self.spec));
        let running = Running {
            last_exits: vec![None; self.spec.workers as usize],
            addresses: self.sockets.addresses(),
            spec: self.spec,
            launcher: self.launcher,
            sockets: self.sockets,
            clients: self.clients,
            fleet,
            log,
            signals,
            children: Vec::new(),
            started: now,
            next_sample: now + SAMPLE_EVERY,
            out_of_memory_kills: stats::out_of_memory_kills(),
            on_ready: Some(on_ready),
            outcome: None,
        };
        Ok(running.live())
    }
}

/// Everything a running supervisor has.
struct Running<F> {
    spec: Spec,
    launcher: Launcher,
    sockets: Sockets,
    addresses: Vec<String>,
    clients: Clients,
    fleet: Fleet,
    log: LogWriter,
    signals: Signals,
    children: Vec<Child>,
    /// By slot.
    last_exits: Vec<Option<LastExit>>,
    started: Instant,
    next_sample: Instant,
    /// The kernel's count when it was last looked up.
    out_of_memory_kills: Option<u64>,
    on_ready: Option<F>,
    outcome: Option<Outcome>,
}

/// Who has something to be read, or room for something to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awake {
    Signals,
    Log,
    Clients,
    /// By process id.
    Child(i32),
}

impl<F: FnOnce(&Status) -> String> Running<F> {
    fn live(mut self) -> Outcome {
        self.log.line(&format!("supervisor {} (pid {}) starts", self.spec.version, nix::unistd::getpid()));
        self.happen(Event::Start);
        loop {
            if let Some(outcome) = self.outcome {
                self.leave(outcome);
                return outcome;
            }
            let awake = self.wait();
            let now = Instant::now();
            if awake.contains(&Awake::Signals) {
                self.take_signals();
            }
            self.listen_to_children(&awake);
            self.reap(now);
            if awake.contains(&Awake::Clients) || self.clients.next_deadline().is_some_and(|due| now >= due) {
                self.serve_clients(now);
            }
            self.sample(now);
            self.log.restart_if_due(now);
            self.log.announce();
            self.happen(Event::Tick);
        }
    }

    /// Sleeps until something happens or is due.
    fn wait(&self) -> Vec<Awake> {
        let mut who = vec![Awake::Signals];
        let mut watched = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(socket) = self.log.wants_room() {
            who.push(Awake::Log);
            watched.push(PollFd::new(socket, PollFlags::POLLOUT));
        }
        for (descriptor, flags) in self.clients.watched() {
            who.push(Awake::Clients);
            watched.push(PollFd::new(descriptor, flags));
        }
        for child in &self.children {
            for (descriptor, flags) in child.watched() {
                who.push(Awake::Child(child.pid));
                watched.push(PollFd::new(descriptor, flags));
            }
        }
        // An interruption reports nothing; the signal's byte waits in its pipe.
        let _ = poll(&mut watched, self.patience());
        let ready = watched.iter().map(|descriptor| descriptor.any().unwrap_or(false));
        who.iter().zip(ready).filter(|(_, ready)| *ready).map(|(who, _)| *who).collect()
    }

    fn patience(&self) -> PollTimeout {
        let due = [self.fleet.next_deadline(), self.clients.next_deadline(), self.log.next_deadline()];
        let next = due.into_iter().flatten().chain([self.next_sample]).min();
        let left = next.map_or(SAMPLE_EVERY, |next| next.saturating_duration_since(Instant::now()));
        // Rounded up, lest the last part of a millisecond be spent in a busy loop.
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }

    /// Feeds the fleet and does what it says, until nothing follows any more.
    fn happen(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.fleet.on(event, Instant::now()) {
                events.extend(self.act(action));
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn { unit, generation } => return Some(self.spawn(unit, generation)),
            Action::Drain { pid } => {
                if let Some(child) = self.children.iter_mut().find(|child| child.pid == pid) {
                    child.tell(&ToWorker::Drain { kind: DrainKind::Stop });
                }
                // It may have ended a moment ago and wait to be reaped.
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            Action::Kill { pid } => kill_group(pid),
            Action::Steer(slots) => {
                if let Err(error) = self.sockets.steer(&slots) {
                    self.say(&format!("connections cannot be steered to the ready workers: {error}"));
                }
            }
            Action::AllReady => {
                let status = self.status();
                if let Some(on_ready) = self.on_ready.take() {
                    self.log.verbatim(&on_ready(&status));
                }
            }
            Action::CloseListeners => self.sockets.close(),
            Action::Log(text) => self.say(&text),
            Action::End(outcome) => self.outcome = Some(outcome),
        }
        None
    }

    fn spawn(&mut self, unit: Unit, generation: u32) -> Event {
        match self.launcher.start(unit, generation, &self.sockets) {
            Ok((child, output)) => {
                let pid = child.pid;
                self.log.add_source(self.fleet.name(unit), pid, output);
                self.children.push(child);
                Event::Spawned { unit, pid }
            }
            Err(error) => Event::SpawnFailed { unit, reason: error.to_string() },
        }
    }

    fn take_signals(&mut self) {
        for signal in self.signals.pending() {
            match signal {
                Signal::SIGTERM | Signal::SIGQUIT => self.stop(signal.as_str()),
                Signal::SIGINT if self.fleet.is_stopping() => {
                    self.say("SIGINT again: everything ends at once");
                    self.happen(Event::StopNow);
                }
                Signal::SIGINT => self.stop("SIGINT"),
                Signal::SIGCHLD | Signal::SIGWINCH => {}
                signal => self.say(&format!("{signal} changes nothing: {}", signals::why_ignored(signal))),
            }
        }
    }

    fn stop(&mut self, cause: &str) {
        self.say(&format!("{cause}: workers finish what they have and end"));
        self.happen(Event::Stop);
    }

    fn listen_to_children(&mut self, awake: &[Awake]) {
        let mut events = Vec::new();
        for child in &mut self.children {
            if awake.contains(&Awake::Child(child.pid)) {
                child.hear(&mut events);
            }
        }
        self.take_note(events);
    }

    fn take_note(&mut self, heard: Vec<child::Heard>) {
        for heard in heard {
            match heard {
                child::Heard::Event(event) => self.happen(event),
                child::Heard::Remark(text) => self.say(&text),
            }
        }
    }

    /// Takes every child that has ended. Strangers, adopted because this process is the first of its namespace, only go.
    fn reap(&mut self, now: Instant) {
        loop {
            let children = &self.children;
            let is_ours = |pid| children.iter().any(|child| child.pid == pid);
            // What a worker started and left behind ends with it. Its id still names its group until it is reaped.
            let ended = sys::reap(|pid| {
                if is_ours(pid) {
                    kill_group(pid)
                }
            });
            let Some((pid, exit)) = ended else { return };
            if pid == self.log.pid() {
                self.log.died(now);
            } else if let Some(index) = self.children.iter().position(|child| child.pid == pid) {
                self.bury(index, exit);
            }
        }
    }

    fn bury(&mut self, index: usize, exit: Exit) {
        let exit = self.cause_of(exit);
        let mut last_words = Vec::new();
        self.children[index].hear(&mut last_words);
        self.take_note(last_words);
        let child = self.children.swap_remove(index);
        self.log.forget_source(child.pid);
        if let Unit::Worker(slot) = child.unit {
            self.last_exits[slot as usize] = Some(last_exit(exit));
        }
        self.happen(Event::Exited { pid: child.pid, exit });
    }

    /// Tells the kernel's SIGKILL from somebody's.
    fn cause_of(&mut self, exit: Exit) -> Exit {
        if exit != Exit::Signal(Signal::SIGKILL as i32) {
            return exit;
        }
        let before = self.out_of_memory_kills;
        self.out_of_memory_kills = stats::out_of_memory_kills();
        if self.out_of_memory_kills > before { Exit::OutOfMemory } else { exit }
    }

    fn serve_clients(&mut self, now: Instant) {
        for (client, request) in self.clients.turn(now) {
            match request {
                Request::Ping => {
                    let pong = Reply::Pong { pid: nix::unistd::getpid().as_raw(), version: self.spec.version.clone() };
                    self.clients.reply(client, &pong);
                }
                Request::Status => {
                    let status = Reply::Status(Box::new(self.status()));
                    self.clients.reply(client, &status);
                }
                Request::Stop { now } => self.stop_for(client, now),
                _ => {
                    let message = "this is not done yet".to_owned();
                    self.clients.reply(client, &Reply::Failed { code: 70, message });
                }
            }
        }
    }

    fn stop_for(&mut self, client: ClientId, now: bool) {
        self.clients.keep_until_end(client);
        if now {
            self.say("told to end at once");
            self.happen(Event::StopNow);
        } else {
            self.stop("told to stop");
        }
    }

    fn sample(&mut self, now: Instant) {
        if now < self.next_sample {
            return;
        }
        self.next_sample = now + SAMPLE_EVERY;
        for child in &mut self.children {
            child.sampler.sample(child.pid, now);
        }
        // Kept fresh, so that a kill elsewhere on this machine is not taken for the cause of a later death here.
        self.out_of_memory_kills = stats::out_of_memory_kills();
    }

    /// Tells the log, and everybody who waits for the end.
    fn say(&mut self, text: &str) {
        self.log.line(text);
        self.clients.tell_waiting(&Reply::Progress(text.to_owned()));
    }

    fn leave(mut self, outcome: Outcome) {
        self.sockets.close();
        self.log.line("everything has ended");
        self.log.finish(LAST_LINES_WITHIN);
        let last_word = match outcome {
            Outcome::Clean => Reply::Done,
            Outcome::Cut => failed(outcome, "requests were cut"),
            Outcome::Misconfigured => failed(outcome, "no worker could run with this configuration"),
        };
        self.clients.tell_waiting(&last_word);
        self.clients.leave();
    }
}

fn rules(spec: &Spec) -> Rules {
    Rules {
        workers: spec.workers,
        worker_readiness: match spec.program {
            Program::Own { .. } => Readiness::Said,
            Program::Foreign { .. } => Readiness::SaidOrAlive(spec.min_uptime),
        },
        processes: spec.processes.iter().map(|process| process.name.clone()).collect(),
        kill_timeout: spec.kill_timeout,
        ready_timeout: spec.ready_timeout,
        seed: fastrand::u64(..),
    }
}

/// Every connection costs a descriptor, and children inherit the limit.
fn raise_descriptor_limit() {
    // A limit that cannot be raised is lived with.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// SIGKILL to a child and everything it started; to the child alone while it has not reached its own group yet.
fn kill_group(pid: i32) {
    let pid = Pid::from_raw(pid);
    if killpg(pid, Signal::SIGKILL).is_err() {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

fn last_exit(exit: Exit) -> LastExit {
    let (code, signal) = match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
        Exit::OutOfMemory => (None, Some(Signal::SIGKILL as i32)),
    };
    LastExit { code, signal, at: format!("{:.0}", Timestamp::now()) }
}

fn failed(outcome: Outcome, message: &str) -> Reply {
    Reply::Failed { code: outcome.exit_code(), message: message.to_owned() }
}
