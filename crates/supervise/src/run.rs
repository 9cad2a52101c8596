//! The supervisor's life: one thread, one `poll(2)`, nothing that blocks.
//!
//! It translates the world into the fleet's events and the fleet's actions into system calls, and decides nothing itself.

mod child;
mod commands;
mod launcher;
mod report;
mod signals;
mod upgrade;

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use self::child::Child;
use self::commands::{Farewell, Previous};
use self::launcher::Launcher;
use self::signals::Signals;
use self::upgrade::Rehearsal;
pub use self::upgrade::Resumed;
use crate::child::sys;
use crate::clients::{ClientId, Clients};
use crate::control::{Reply, Scale};
use crate::fleet::{Action, Event, Exit, Fleet, Part, Readiness, Rules, Unit};
use crate::frame::{DrainKind, ToWorker};
use crate::log_writer::{Author, LogSettings, LogWriter};
use crate::metrics::Totals;
use crate::sockets::Sockets;
use crate::stats;
use crate::status::{LastExit, State, Status};
use crate::system::{ActivatedSocket, Host, PidFile, ServiceManager, affinity};
use crate::{Error, Outcome, Program, Spec, StateLock};

/// How often processor time and memory are looked up.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What the log-writer gets to write the last lines.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(1200);

/// Something happens every second at least. If nothing has for so long, this process was not running: it was stopped, or its
/// machine or its container was.
const ASLEEP_AFTER: Duration = Duration::from_secs(2);

/// Workers that report every second get no new connections after this long without a word.
const SILENCE_TOLERATED: Duration = Duration::from_millis(1500);

/// How many ends are remembered of each slot.
const EXITS_KEPT: usize = 10;

/// What a supervisor asks of whoever starts it.
pub struct Hooks<'a> {
    /// Called once, when all workers are ready for the first time; what it returns is written to stdout as it is.
    pub on_ready: Box<dyn FnOnce(&Status) -> String + 'a>,
    /// Called at each reload with the workers' executable, if one was named: what to run from now on, or what is wrong with
    /// the configuration, for people.
    pub respec: Box<dyn FnMut(Option<&Path>) -> Result<Spec, String> + 'a>,
}

impl fmt::Debug for Hooks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// A supervisor that holds its sockets and locks and has started nothing yet.
#[derive(Debug)]
pub struct Supervisor {
    spec: Spec,
    launcher: Launcher,
    sockets: Sockets,
    clients: Clients,
    holdings: Holdings,
}

/// What a supervisor holds for others to see, until its process ends.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Holdings {
    locks: Vec<StateLock>,
    pid_file: Option<PidFile>,
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
        let sockets = match ActivatedSocket::from_environment().and_then(|sockets| Sockets::bind(&spec, sockets)) {
            Ok(sockets) => sockets,
            Err(error) => {
                clients.abandon();
                return Err(error);
            }
        };
        Ok(Self { spec, launcher, sockets, clients, holdings: Holdings::default() })
    }

    /// Holds a lock until the process ends, whatever program it runs by then.
    pub fn hold(&mut self, lock: StateLock) {
        self.holdings.locks.push(lock);
    }

    /// Holds the pid file until the end.
    pub fn hold_pid_file(&mut self, pid_file: PidFile) {
        self.holdings.pid_file = Some(pid_file);
    }

    /// The addresses as they were bound, so never with port 0, in the order of [`Spec::listen`].
    pub fn addresses(&self) -> Vec<String> {
        self.sockets.addresses(crate::sockets::FIRST_GENERATION)
    }

    /// The address of the admin listener as it was bound.
    pub fn admin_address(&self) -> Option<String> {
        self.sockets.admin_address().map(|address| address.to_string())
    }

    /// Starts everything, keeps it alive, and returns when a signal or a command has ended it and nothing runs any more.
    ///
    /// Call it from the only thread of the process: it forks. Standard output belongs to the log-writer from now on.
    pub fn run(self, hooks: Hooks<'_>) -> Result<Outcome, Error> {
        let now = Instant::now();
        let settings = LogSettings { json: self.spec.log_json, files: self.spec.log_files.clone() };
        let log =
            LogWriter::start(settings, now).map_err(|source| Error::System { what: "start the log-writer", source })?;
        let signals = Signals::listen().map_err(|source| Error::System { what: "listen to signals", source })?;
        let fleet = Fleet::new(rules(&self.spec), fastrand::Rng::new());
        let mut running = Running {
            spec: self.spec,
            binary: None,
            launcher: self.launcher,
            sockets: self.sockets,
            clients: self.clients,
            holdings: self.holdings,
            manager: ServiceManager::from_environment(),
            host: Host::of_this_process(),
            cpus: affinity::cpus(),
            totals: Totals::default(),
            reloads: Reloads::default(),
            fleet,
            log,
            signals,
            children: Vec::new(),
            exits: Vec::new(),
            started: now,
            last_event: now,
            next_sample: now + SAMPLE_EVERY,
            next_in_schedule: None,
            out_of_memory_kills: stats::out_of_memory_kills(),
            on_ready: Some(hooks.on_ready),
            respec: hooks.respec,
            previous: None,
            farewell: None,
            reload_again: false,
            rehearsal: None,
            executable: own_executable(),
            outcome: None,
        };
        running.log.line(&format!("supervisor {} (pid {}) starts", running.spec.version, nix::unistd::getpid()));
        running.happen(Event::Start);
        Ok(running.live())
    }
}

/// How reloads have ended so far.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
struct Reloads {
    done: u64,
    rolled_back: u64,
    /// Nothing was changed, because what was asked for could not be.
    refused: u64,
}

/// Everything a running supervisor has.
struct Running<'a> {
    spec: Spec,
    /// The workers' executable, once a reload has named one.
    binary: Option<PathBuf>,
    launcher: Launcher,
    sockets: Sockets,
    clients: Clients,
    holdings: Holdings,
    manager: ServiceManager,
    host: Host,
    /// That workers may be bound to.
    cpus: Vec<usize>,
    /// The metrics of all workers there were.
    totals: Totals,
    reloads: Reloads,
    fleet: Fleet,
    log: LogWriter,
    signals: Signals,
    children: Vec<Child>,
    /// By slot, the newest last.
    exits: Vec<VecDeque<LastExit>>,
    started: Instant,
    last_event: Instant,
    next_sample: Instant,
    /// When the schedule asks for new workers.
    next_in_schedule: Option<Timestamp>,
    /// The kernel's count when it was last looked up.
    out_of_memory_kills: Option<u64>,
    on_ready: Option<Box<dyn FnOnce(&Status) -> String + 'a>>,
    respec: Box<dyn FnMut(Option<&Path>) -> Result<Spec, String> + 'a>,
    /// What is in force again should the reload under way fail.
    previous: Option<Previous>,
    /// A failed reload whose worker's last words are awaited.
    farewell: Option<Farewell>,
    /// Another reload was asked for by a signal while one was under way.
    reload_again: bool,
    /// The program that is to take this one's place is being tried.
    rehearsal: Option<Rehearsal>,
    /// Where this program lay when it was started, and where the one that takes its place will lie.
    executable: PathBuf,
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

impl Running<'_> {
    fn live(mut self) -> Outcome {
        self.plan_schedule();
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
            self.follow_schedule();
            self.log.restart_if_due(now);
            self.log.announce();
            if awake.contains(&Awake::Log) {
                self.hear_last_words();
            }
            self.say_farewell(now);
            self.end_late_rehearsal(now);
            self.tell_service_manager(now);
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
        if let Some(socket) = self.log.wants_to_read() {
            who.push(Awake::Log);
            watched.push(PollFd::new(socket, PollFlags::POLLIN));
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
        // Rounded up, lest the last part of a millisecond be spent in a busy loop.
        let left = self.patience() + Duration::from_millis(1);
        // An interruption reports nothing; the signal's byte waits in its pipe.
        let _ = poll(&mut watched, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        let ready = watched.iter().map(|descriptor| descriptor.any().unwrap_or(false));
        who.iter().zip(ready).filter(|(_, ready)| *ready).map(|(who, _)| *who).collect()
    }

    fn patience(&self) -> Duration {
        let farewell = self.farewell.as_ref().map(|farewell| farewell.deadline);
        let rehearsal = self.rehearsal.as_ref().and_then(Rehearsal::deadline);
        let manager = self.manager.next_watchdog();
        let others = [self.clients.next_deadline(), self.log.next_deadline(), farewell, rehearsal, manager];
        let due = [self.fleet.next_deadline()].into_iter().chain(others);
        let next = due.flatten().fold(self.next_sample, Instant::min);
        next.saturating_duration_since(Instant::now())
    }

    /// Feeds the fleet and does what it says, until nothing follows any more.
    fn happen(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        let now = Instant::now();
        if now.saturating_duration_since(self.last_event) > ASLEEP_AFTER {
            events.push_front(Event::Woke);
        }
        self.last_event = now;
        while let Some(event) = events.pop_front() {
            for action in self.fleet.on(event, Instant::now()) {
                events.extend(self.act(action));
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn { unit, generation } => return Some(self.spawn(unit, generation)),
            Action::Drain { pid, kind } => self.drain(pid, kind),
            Action::Abort { pid } => drop(kill(Pid::from_raw(pid), Signal::SIGABRT)),
            Action::Kill { pid } => kill_group(pid),
            Action::Steer(slots) => {
                if let Err(error) = self.sockets.steer(&slots) {
                    self.say(&format!("connections cannot be steered to the ready workers: {error}"));
                }
            }
            Action::LookAtQueue { slot } => {
                let length = self.sockets.waiting_at(slot).iter().map(|(_, length)| length).sum();
                return Some(Event::Queue { slot, length });
            }
            Action::Adopt { slot } => self.have_adopted(slot),
            Action::AllReady => self.announce_ready(),
            Action::CloseListeners => self.sockets.close(),
            Action::Log(text) => self.say(&text),
            Action::Done { ticket } => self.clients.conclude(ClientId(ticket), &Reply::Done),
            Action::Failed { ticket, message } => {
                self.clients.conclude(ClientId(ticket), &Reply::Failed { code: 1, message });
            }
            Action::ReloadEnded { ticket, failure } => self.end_reload(ticket.map(ClientId), failure),
            Action::End(outcome) => self.outcome = Some(outcome),
        }
        None
    }

    fn announce_ready(&mut self) {
        self.manager.ready();
        let status = self.status();
        if let Some(on_ready) = self.on_ready.take() {
            self.log.verbatim(&on_ready(&status));
        }
    }

    fn spawn(&mut self, unit: Unit, generation: u32) -> Event {
        match self.launcher.start(unit, generation, self.fleet.wanted(), &self.sockets) {
            Ok((child, pipes)) => {
                let pid = child.pid;
                self.bind_to_processor(unit, pid);
                self.log.add_source(Author::of(unit, self.fleet.name(unit), pid, generation), pipes);
                self.children.push(child);
                Event::Spawned { unit, pid }
            }
            Err(error) => Event::SpawnFailed { unit, reason: error.to_string() },
        }
    }

    /// Our own workers are told why. SIGTERM means a stop to them, so a reload is a matter of the channel alone.
    fn drain(&mut self, pid: i32, kind: DrainKind) {
        let child = self.children.iter_mut().find(|child| child.pid == pid);
        let told = child.is_some_and(|child| {
            child.tell(&ToWorker::Drain { kind });
            child.is_own()
        });
        if kind == DrainKind::Stop || !told {
            // It may have ended a moment ago and wait to be reaped.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// Hands the shards of `slot` at which somebody waits to one of our own workers that is well.
    fn have_adopted(&mut self, slot: u32) {
        for (shard, waiting) in self.sockets.waiting_at(slot) {
            let fleet = &self.fleet;
            let is_well = |child: &&mut Child| {
                let serves = fleet.part(child.pid) == Some((Part::Serving, State::Ready));
                serves && child.is_own() && child.unit != Unit::Worker(slot)
            };
            let mut well: Vec<_> = self.children.iter_mut().filter(is_well).collect();
            // Not the same one each time: it may be about to be found silent, too.
            let chosen = fastrand::usize(..well.len().max(1));
            let Some(child) = well.get_mut(chosen) else { return };
            if child.hand_over(shard) {
                let taker = fleet.name(child.unit);
                self.log.line(&format!("{taker} takes {waiting} connections that wait for w{slot}"));
            }
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
                Signal::SIGHUP => self.reload_by_signal(),
                Signal::SIGUSR2 => self.begin_upgrade(None),
                Signal::SIGTTIN => self.scale(None, Scale::By(1)),
                Signal::SIGTTOU => self.scale(None, Scale::By(-1)),
                Signal::SIGUSR1 if self.log.has_files() => {
                    self.say("SIGUSR1: log files are opened anew");
                    self.log.reopen();
                }
                Signal::SIGCHLD | Signal::SIGWINCH => {}
                signal => self.say(&format!("{signal} changes nothing: {}", signals::why_ignored(signal))),
            }
        }
    }

    fn stop(&mut self, cause: &str) {
        self.say(&format!("{cause}: workers finish what they have and end"));
        self.manager.stopping();
        self.happen(Event::Stop);
    }

    fn listen_to_children(&mut self, awake: &[Awake]) {
        let mut heard = Vec::new();
        for child in &mut self.children {
            if awake.contains(&Awake::Child(child.pid)) {
                child.hear(&mut heard);
            }
        }
        self.take_note(heard);
    }

    fn take_note(&mut self, heard: Vec<child::Heard>) {
        for heard in heard {
            match heard {
                child::Heard::Event(event) => self.happen(event),
                child::Heard::Remark(text) => self.say(&text),
                child::Heard::Metrics { pid, snapshot } => self.totals.update(pid, snapshot),
                child::Heard::MetricsWanted { pid, request } => self.show_metrics(pid, request),
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
            } else if self.rehearsal.as_ref().is_some_and(|rehearsal| rehearsal.pid == pid) {
                self.end_rehearsal(exit);
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
        self.totals.ended(child.pid);
        if let Unit::Worker(slot) = child.unit {
            self.remember_exit(slot, exit);
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

    fn sample(&mut self, now: Instant) {
        if now < self.next_sample {
            return;
        }
        self.next_sample = now + SAMPLE_EVERY;
        let mut used = Vec::new();
        for child in &mut self.children {
            child.sampler.sample(child.pid, now);
            let rss_bytes = child.sampler.usage().rss_bytes;
            let requests = child.statistics.map(|statistics| statistics.requests_total);
            used.push(Event::Usage { pid: child.pid, rss_bytes, requests });
        }
        used.into_iter().for_each(|event| self.happen(event));
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
            Outcome::NeverReady => failed(outcome, "no worker was ever ready"),
            Outcome::Misconfigured => failed(outcome, "no worker could run with this configuration"),
        };
        drop(self.holdings.pid_file);
        self.clients.tell_waiting(&last_word);
        self.clients.leave();
        // Given up with the process: whoever waits for them may start the next supervisor, and must not meet this one.
        std::mem::forget(self.holdings.locks);
    }
}

impl Running<'_> {
    fn remember_exit(&mut self, slot: u32, exit: Exit) {
        let slots = self.fleet.slots() as usize;
        self.exits.resize_with(slots, VecDeque::new);
        let exits = &mut self.exits[slot as usize];
        exits.push_back(last_exit(exit));
        while exits.len() > EXITS_KEPT {
            exits.pop_front();
        }
    }

    fn bind_to_processor(&mut self, unit: Unit, pid: i32) {
        let Unit::Worker(slot) = unit else { return };
        let cpu = self.spec.cpu_affinity.then(|| affinity::cpu_of(slot, &self.cpus)).flatten();
        if let Some(Err(error)) = cpu.map(|cpu| affinity::pin(pid, cpu)) {
            self.say(&format!("w{slot} (pid {pid}) cannot be bound to a processor: {error}"));
        }
    }

    fn tell_service_manager(&mut self, now: Instant) {
        self.manager.watchdog(now);
        let summary = self.summary();
        self.manager.status(&summary);
    }

    /// Finds out when the schedule asks for new workers next.
    fn plan_schedule(&mut self) {
        let schedule = self.spec.recycling.schedule.as_ref();
        self.next_in_schedule = schedule.and_then(|schedule| schedule.next_after(Timestamp::now()));
    }

    fn follow_schedule(&mut self) {
        if self.next_in_schedule.is_some_and(|due| Timestamp::now() >= due) {
            self.plan_schedule();
            self.say("the schedule asks for new workers");
            self.happen(Event::Scheduled);
        }
    }
}

/// The numbers that `spec` gives the fleet.
fn rules(spec: &Spec) -> Rules {
    let is_own = matches!(spec.program, Program::Own { .. });
    let alive = Readiness::SaidOrAlive(spec.min_uptime);
    let processes = spec.processes.iter();
    Rules {
        workers: spec.workers,
        worker_readiness: if is_own { Readiness::Said } else { alive },
        processes: processes
            .map(|process| (process.name.clone(), if process.notifies { Readiness::Said } else { alive }))
            .collect(),
        kill_timeout: spec.kill_timeout,
        ready_timeout: spec.ready_timeout,
        canary: spec.canary,
        hang_timeout: spec.hang_timeout,
        // Our own workers report every second.
        silence_tolerated: is_own.then_some(SILENCE_TOLERATED),
        max_memory: spec.recycling.max_memory,
        max_requests: spec.recycling.max_requests,
        max_age: spec.recycling.max_age,
    }
}

/// Where this program lies, as it was found.
fn own_executable() -> PathBuf {
    let named = || std::env::args_os().next().unwrap_or_default().into();
    std::env::current_exe().unwrap_or_else(|_| named())
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
