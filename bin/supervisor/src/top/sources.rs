//! Where events come from: the keyboard, signals, and connections to the supervisor. Each source waits on a thread of its own, so
//! that none of them holds up the picture or another; the threads end with the view, at the latest with the process.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SendError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ratatui::crossterm::event::{self, Event as TerminalEvent, KeyEventKind};
use supervise::control::{Client, LogsWanted, Reply, Request};

use super::app::{Event, Picture};
use super::change::Change;
use crate::signals;

/// Between two looks at the supervisor, and two attempts to reach one that is away.
const EVERY: Duration = Duration::from_secs(1);

/// Events that wait for the picture; whoever has more to tell waits as well.
const MOST_WAITING: usize = 4_096;

/// How much of the past a log begins with.
const FIRST_LINES: u32 = 200;

/// More of one line is not shown.
const LONGEST_LINE_BYTES: u64 = 16 * 1024;

type ToView = SyncSender<Event>;

/// The view takes no more events.
type Gone = SendError<Event>;

/// A way to start what takes its time.
pub(super) struct Sources {
    socket: PathBuf,
    events: ToView,
}

impl Sources {
    /// Starts everything that tells without being asked.
    pub(super) fn start(socket: PathBuf) -> io::Result<(Self, Receiver<Event>)> {
        let (events, received) = mpsc::sync_channel(MOST_WAITING);
        let sources = Self { socket, events };
        let events = sources.events.clone();
        signals::on_ending(move || {
            // A view that is gone has ended already.
            let _ = events.send(Event::Ended);
        })?;
        sources.spawn("keys", |_, events| read_keys(events))?;
        sources.spawn("status", look_each_second)?;
        sources.spawn("logs", follow_logs)?;
        Ok((sources, received))
    }

    /// Has the supervisor do something; progress and end come as events.
    pub(super) fn perform(&self, change: Change) -> io::Result<()> {
        self.spawn("change", move |socket, events| {
            let result = carry_out(socket, &change.request(), events);
            events.send(Event::Finished(result))
        })
    }

    fn spawn(
        &self,
        name: &str,
        run: impl FnOnce(&Path, &ToView) -> Result<(), Gone> + Send + 'static,
    ) -> io::Result<()> {
        let (socket, events) = (self.socket.clone(), self.events.clone());
        // Being told that the view is gone is how these threads end.
        thread::Builder::new().name(name.to_owned()).spawn(move || drop(run(&socket, &events)))?;
        Ok(())
    }
}

fn read_keys(events: &ToView) -> Result<(), Gone> {
    loop {
        match event::read() {
            Ok(TerminalEvent::Key(key)) if key.kind != KeyEventKind::Release => events.send(Event::Key(key))?,
            Ok(TerminalEvent::Resize(..)) => events.send(Event::Resized)?,
            Ok(_) => {}
            // The terminal is gone, and with it everybody who looks.
            Err(_) => return events.send(Event::Ended),
        }
    }
}

fn look_each_second(socket: &Path, events: &ToView) -> Result<(), Gone> {
    loop {
        let begun = Instant::now();
        let seen = Client::connect(socket).and_then(|mut client| client.status());
        events.send(match seen {
            Ok(status) => Event::Seen(Box::new(Picture { status, at: Timestamp::now() })),
            Err(error) => Event::Lost(error.to_string()),
        })?;
        thread::sleep(EVERY.saturating_sub(begun.elapsed()));
    }
}

fn follow_logs(socket: &Path, events: &ToView) -> Result<(), Gone> {
    let wanted = LogsWanted { lines: FIRST_LINES, follow: true, json: false, source: None };
    loop {
        let ended = match Client::connect(socket).and_then(|client| client.logs(&wanted)) {
            Ok(Ok(lines)) => pass_on(lines, events)?,
            Ok(Err(refusal)) => refusal.message,
            Err(error) => error.to_string(),
        };
        events.send(Event::LogsEnded(ended))?;
        thread::sleep(EVERY);
    }
}

/// Returns why no more lines come.
fn pass_on(lines: impl Read, events: &ToView) -> Result<String, Gone> {
    events.send(Event::LogsBegun)?;
    let mut lines = BufReader::new(lines);
    loop {
        let mut line = Vec::new();
        match lines.by_ref().take(LONGEST_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => return Ok("the supervisor has ended its log".to_owned()),
            Ok(_) => events.send(Event::Logged(String::from_utf8_lossy(&line).into_owned()))?,
            Err(error) => return Ok(error.to_string()),
        }
    }
}

fn carry_out(socket: &Path, request: &Request, events: &ToView) -> Result<(), String> {
    let replies = Client::connect(socket).and_then(|client| client.command(request));
    for reply in replies.map_err(|error| error.to_string())? {
        match reply.map_err(|error| error.to_string())? {
            Reply::Progress(sentence) => {
                // The change goes on in the supervisor, whether or not somebody looks.
                let _ = events.send(Event::Progressed(sentence));
            }
            Reply::Failed { message, .. } => return Err(message),
            _ => {}
        }
    }
    Ok(())
}
