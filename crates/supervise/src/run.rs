//! The supervisor's life: one thread, one `poll(2)`, nothing that blocks.
//!
//! It translates the world into the fleet's events and the fleet's actions into system calls, and decides nothing itself.

mod child;
mod commands;
mod launcher;
mod processes;
mod report;
mod signals;
mod start;
mod upgrade;

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use self::child::Child;
use self::commands::{Farewell, Previous};
use self::launcher::Launcher;
use self::processes::kill_group;
use self::signals::Signals;
use self::start::own_executable;
pub use self::start::{Hooks, OnReady, Respec, Supervisor};
use self::upgrade::Rehearsal;
pub use self::upgrade::Resumed;
use crate::clients::{ClientId, Clients};
use crate::control::{Reply, Scale};
use crate::fleet::{Action, Event, Fleet};
use crate::log_writer::LogWriter;
use crate::metrics::Totals;
use crate::sockets::Sockets;
use crate::stats;
use crate::status::LastExit;
use crate::system::{Host, PidFile, ServiceManager, affinity};
use crate::{Error, Outcome, Spec, StateLock};

/// How often processor time and memory are looked up.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What the log-writer gets to write the last lines.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(1200);

/// Something happens every second at least. If nothing has for so long, this process was not running: it was stopped, or its
/// machine or its container was.
const ASLEEP_AFTER: Duration = Duration::from_secs(2);

/// What a supervisor holds for others to see, until its process ends.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Holdings {
    locks: Vec<StateLock>,
    pid_file: Option<PidFile>,
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
    state: DurableState,
    signals: Signals,
    manager: ServiceManager,
    host: Host,
    /// That workers may be bound to.
    cpus: Vec<usize>,
    last_event: Instant,
    next_sample: Instant,
    /// When the schedule asks for new workers.
    next_in_schedule: Option<Timestamp>,
    /// The kernel's count when it was last looked up.
    out_of_memory_kills: Option<u64>,
    on_ready: Option<OnReady<'a>>,
    respec: Respec<'a>,
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

/// What a supervisor leaves to the program that takes its place.
#[derive(Debug, Serialize, Deserialize)]
struct DurableState {
    spec: Spec,
    /// The workers' executable, once a reload has named one.
    binary: Option<PathBuf>,
    launcher: Launcher,
    sockets: Sockets,
    clients: Clients,
    holdings: Holdings,
    /// The metrics of all workers there were.
    totals: Totals,
    reloads: Reloads,
    fleet: Fleet,
    log: LogWriter,
    children: Vec<Child>,
    /// By slot, the newest last.
    exits: Vec<VecDeque<LastExit>>,
    #[serde(with = "crate::handover::moment")]
    started: Instant,
    /// Who asked for the program that goes on.
    upgrade_for: Option<ClientId>,
}

impl DurableState {
    /// What runs with it.
    fn run(self, hooks: Hooks<'_>) -> Result<Running<'_>, Error> {
        let signals = Signals::listen().map_err(|source| Error::System { what: "listen to signals", source })?;
        let now = Instant::now();
        Ok(Running {
            state: self,
            signals,
            manager: ServiceManager::from_environment(),
            host: Host::of_this_process(),
            cpus: affinity::cpus(),
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
        })
    }
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
            if awake.contains(&Awake::Clients) || self.state.clients.next_deadline().is_some_and(|due| now >= due) {
                self.serve_clients(now);
            }
            self.sample(now);
            self.follow_schedule();
            self.state.log.restart_if_due(now);
            self.state.log.announce();
            if awake.contains(&Awake::Log) {
                self.hear_last_words();
            }
            self.say_farewell(now);
            self.end_late_rehearsal(now);
            self.tell_service_manager(now);
            self.happen(Event::Tick);
            // Not where a reload ends: what else the fleet wants done at that moment comes first.
            self.reload_again_if_wanted();
        }
    }

    /// Sleeps until something happens or is due.
    fn wait(&self) -> Vec<Awake> {
        let mut who = vec![Awake::Signals];
        let mut watched = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(socket) = self.state.log.wants_room() {
            who.push(Awake::Log);
            watched.push(PollFd::new(socket, PollFlags::POLLOUT));
        }
        if let Some(socket) = self.state.log.wants_to_read() {
            who.push(Awake::Log);
            watched.push(PollFd::new(socket, PollFlags::POLLIN));
        }
        for (descriptor, flags) in self.state.clients.watched() {
            who.push(Awake::Clients);
            watched.push(PollFd::new(descriptor, flags));
        }
        for child in &self.state.children {
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
        let others = [self.state.clients.next_deadline(), self.state.log.next_deadline(), farewell, rehearsal, manager];
        let due = [self.state.fleet.next_deadline()].into_iter().chain(others);
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
            for action in self.state.fleet.on(event, now) {
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
                if let Err(error) = self.state.sockets.steer(&slots) {
                    self.say(&format!("connections cannot be steered to the ready workers: {error}"));
                }
            }
            Action::LookAtQueue { slot } => {
                let length = self.state.sockets.waiting_at(slot).iter().map(|(_, length)| length).sum();
                return Some(Event::Queue { slot, length });
            }
            Action::Adopt { slot } => self.have_adopted(slot),
            Action::TellNumber { count } => self.tell_number(count),
            Action::AllReady => self.announce_ready(),
            Action::CloseListeners => self.state.sockets.close(),
            Action::Log(text) => self.say(&text),
            Action::Done { ticket } => self.state.clients.conclude(ClientId(ticket), &Reply::Done),
            Action::Failed { ticket, message } => {
                self.state.clients.conclude(ClientId(ticket), &Reply::Failed { code: 1, message });
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
            self.state.log.verbatim(&on_ready(&status));
        }
    }

    /// A reload is over, or was refused. Before everything was ready for the first time, that is nothing the service manager waits for.
    fn tell_manager_of_end_of_reload(&mut self) {
        if self.state.fleet.is_announced() {
            self.manager.ready();
        }
    }

    fn take_signals(&mut self) {
        for signal in self.signals.pending() {
            match signal {
                Signal::SIGTERM | Signal::SIGQUIT => self.stop(signal.as_str()),
                Signal::SIGINT if self.state.fleet.is_stopping() => {
                    self.say("SIGINT again: everything ends at once");
                    self.happen(Event::StopNow);
                }
                Signal::SIGINT => self.stop("SIGINT"),
                Signal::SIGHUP if signals::has_lost_terminal() => self.stop("the terminal has gone"),
                Signal::SIGHUP => self.reload_by_signal(),
                Signal::SIGUSR2 => self.begin_upgrade(None),
                Signal::SIGTTIN => self.scale(None, Scale::By(1)),
                Signal::SIGTTOU => self.scale(None, Scale::By(-1)),
                Signal::SIGUSR1 if self.state.log.has_files() => {
                    self.say("SIGUSR1: log files are opened anew");
                    self.state.log.reopen();
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

    fn sample(&mut self, now: Instant) {
        if now < self.next_sample {
            return;
        }
        self.next_sample = now + SAMPLE_EVERY;
        let mut used = Vec::new();
        for child in &mut self.state.children {
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
        self.state.log.line(text);
        self.state.clients.tell_waiting(&Reply::Progress(text.to_owned()));
    }

    fn leave(mut self, outcome: Outcome) {
        self.state.sockets.close();
        // Whoever waits for something else than the end must not take the end for it.
        self.end_farewell();
        self.abandon_rehearsal();
        self.state.log.line("everything has ended");
        self.state.log.finish(LAST_LINES_WITHIN);
        let last_word = match outcome {
            Outcome::Clean => Reply::Done,
            Outcome::Cut => failed(outcome, "requests were cut"),
            Outcome::NeverReady => failed(outcome, "no worker was ever ready"),
            Outcome::Misconfigured => failed(outcome, "no worker could run with this configuration"),
        };
        drop(self.state.holdings.pid_file);
        self.state.clients.tell_waiting(&last_word);
        self.state.clients.leave();
        // Given up with the process: whoever waits for them may start the next supervisor, and must not meet this one.
        std::mem::forget(self.state.holdings.locks);
    }
}

impl Running<'_> {
    fn tell_service_manager(&mut self, now: Instant) {
        self.manager.watchdog(now);
        let summary = self.summary();
        self.manager.status(&summary);
    }

    /// Finds out when the schedule asks for new workers next.
    fn plan_schedule(&mut self) {
        let schedule = self.state.spec.recycling.schedule.as_ref();
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

fn failed(outcome: Outcome, message: &str) -> Reply {
    Reply::Failed { code: outcome.exit_code(), message: message.to_owned() }
}
