//! The processes of a running supervisor: from their fork to their reaping, and what they say meanwhile.

use std::collections::VecDeque;
use std::time::Instant;

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::child::{Child, Heard};
use super::{Awake, Running};
use crate::child::sys;
use crate::fleet::{Event, Exit, Part, Unit};
use crate::frame::{DrainKind, ToWorker};
use crate::log_writer::Author;
use crate::stats;
use crate::status::{LastExit, State};
use crate::system::affinity;

/// How many ends are remembered of each slot.
const EXITS_KEPT: usize = 10;

impl Running<'_> {
    pub(super) fn spawn(&mut self, unit: Unit, generation: u32) -> Event {
        match self.state.launcher.start(unit, generation, self.state.fleet.wanted(), &self.state.sockets) {
            Ok((child, pipes)) => {
                let pid = child.pid;
                self.bind_to_processor(unit, pid);
                self.state.log.add_source(Author::of(unit, self.state.fleet.name(unit), pid, generation), pipes);
                self.state.children.push(child);
                Event::Spawned { unit, pid }
            }
            Err(error) => Event::SpawnFailed { unit, reason: error.to_string() },
        }
    }

    /// Our own workers are told why. SIGTERM means a stop to them, so a reload is a matter of the channel alone.
    pub(super) fn drain(&mut self, pid: i32, kind: DrainKind) {
        let child = self.state.children.iter_mut().find(|child| child.pid == pid);
        let told = child.is_some_and(|child| {
            child.tell(&ToWorker::Drain { kind });
            child.is_own()
        });
        if kind == DrainKind::Stop || !told {
            // It may have ended a moment ago and wait to be reaped.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// What workers divide between them, they divide by their number. Whoever is about to go keeps the part it has.
    pub(super) fn tell_number(&mut self, count: u32) {
        let stays = |child: &&mut Child| matches!(child.unit, Unit::Worker(slot) if slot < count);
        self.state.children.iter_mut().filter(stays).for_each(|child| child.tell(&ToWorker::Workers { count }));
    }

    /// Hands the shards of `slot` at which somebody waits to one of our own workers that is well.
    pub(super) fn have_adopted(&mut self, slot: u32) {
        for (shard, waiting) in self.state.sockets.waiting_at(slot) {
            let fleet = &self.state.fleet;
            let is_well = |child: &&mut Child| {
                let serves = fleet.part(child.pid) == Some((Part::Serving, State::Ready));
                serves && child.is_own() && child.unit != Unit::Worker(slot)
            };
            let mut well: Vec<_> = self.state.children.iter_mut().filter(is_well).collect();
            // Not the same one each time: it may be about to be found silent, too.
            let chosen = fastrand::usize(..well.len().max(1));
            let Some(child) = well.get_mut(chosen) else { return };
            if child.hand_over(shard) {
                let taker = fleet.name(child.unit);
                self.state.log.line(&format!("{taker} takes {waiting} connections that wait for w{slot}"));
            }
        }
    }

    pub(super) fn listen_to_children(&mut self, awake: &[Awake]) {
        let mut heard = Vec::new();
        for child in &mut self.state.children {
            if awake.contains(&Awake::Child(child.pid)) {
                child.hear(&mut heard);
            }
        }
        self.take_note(heard);
    }

    pub(super) fn take_note(&mut self, heard: Vec<Heard>) {
        let mut questions = Vec::new();
        for heard in heard {
            match heard {
                Heard::Event(event) => self.happen(event),
                Heard::Remark(text) => self.say(&text),
                Heard::Metrics { pid, snapshot } => self.state.totals.update(pid, snapshot),
                Heard::MetricsWanted { pid, request } => questions.push((pid, request)),
            }
        }
        self.show_metrics(&questions);
    }

    /// Takes every child that has ended. Strangers, adopted because this process is the first of its namespace, only go.
    pub(super) fn reap(&mut self, now: Instant) {
        loop {
            let children = &self.state.children;
            let is_ours = |pid| children.iter().any(|child| child.pid == pid);
            // What a worker started and left behind ends with it. Its id still names its group until it is reaped.
            let ended = sys::reap(|pid| {
                if is_ours(pid) {
                    kill_group(pid)
                }
            });
            let Some((pid, exit)) = ended else { return };
            if pid == self.state.log.pid() {
                self.state.log.died(now);
            } else if self.rehearsal.as_ref().is_some_and(|rehearsal| rehearsal.pid == pid) {
                self.end_rehearsal(exit);
            } else if let Some(index) = self.state.children.iter().position(|child| child.pid == pid) {
                self.bury(index, exit);
            }
        }
    }

    pub(super) fn bury(&mut self, index: usize, exit: Exit) {
        let exit = self.cause_of(exit);
        let mut last_words = Vec::new();
        self.state.children[index].hear_all(&mut last_words);
        self.take_note(last_words);
        let child = self.state.children.swap_remove(index);
        self.state.log.forget_source(child.pid);
        self.state.totals.ended(child.pid);
        if let Unit::Worker(slot) = child.unit {
            self.remember_exit(slot, exit);
        }
        self.happen(Event::Exited { pid: child.pid, exit });
    }

    /// Tells the kernel's SIGKILL from somebody's.
    pub(super) fn cause_of(&mut self, exit: Exit) -> Exit {
        if exit != Exit::Signal(Signal::SIGKILL as i32) {
            return exit;
        }
        let before = self.out_of_memory_kills;
        self.out_of_memory_kills = stats::out_of_memory_kills();
        if self.out_of_memory_kills > before { Exit::OutOfMemory } else { exit }
    }

    pub(super) fn remember_exit(&mut self, slot: u32, exit: Exit) {
        let slots = self.state.fleet.slots() as usize;
        self.state.exits.resize_with(slots, VecDeque::new);
        let exits = &mut self.state.exits[slot as usize];
        exits.push_back(last_exit(exit));
        while exits.len() > EXITS_KEPT {
            exits.pop_front();
        }
    }

    pub(super) fn bind_to_processor(&mut self, unit: Unit, pid: i32) {
        let Unit::Worker(slot) = unit else { return };
        let cpu = self.state.spec.cpu_affinity.then(|| affinity::cpu_of(slot, &self.cpus)).flatten();
        if let Some(Err(error)) = cpu.map(|cpu| affinity::pin(pid, cpu)) {
            self.say(&format!("w{slot} (pid {pid}) cannot be bound to a processor: {error}"));
        }
    }
}

/// SIGKILL to a child and everything it started; to the child alone while it has not reached its own group yet.
pub(super) fn kill_group(pid: i32) {
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
