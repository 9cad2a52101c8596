//! Everywhere a line goes: stdout, a file, memory, and commands that read the log. None of them is waited for.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::thread;
use std::time::Instant;

use jiff::Timestamp;

use super::files::Files;
use super::line::{Author, Format, Origin, Stream};
use super::queue::Sender;
use super::recent::{Recent, Written};
use super::viewer::{self, Viewer};
use super::{LogSettings, stdout};
use crate::control::LogsWanted;

/// More commands than this do not read the log at once.
const MOST_VIEWERS: usize = 64;

/// The ways out.
pub(super) struct Outputs {
    format: Format,
    supervisor: Rc<Origin>,
    stdout: Sender,
    files: Option<Files>,
    recent: Recent,
    pub(super) viewers: Vec<Viewer>,
    /// The line as it goes to stdout and to its file; kept for its memory.
    formatted: Vec<u8>,
}

impl Outputs {
    /// For the supervisor with this id. Stdout gets nothing until [`Outputs::write_to_stdout`].
    pub(super) fn new(settings: &LogSettings, supervisor: i32) -> Self {
        let format = Format::of(settings.json);
        let supervisor = Rc::new(Origin::new(Author::supervisor(supervisor), None));
        let stdout = Sender::default();
        let files = settings.files.as_ref();
        let files = files.map(|files| Files::start(files, format, &supervisor, &stdout.queue()));
        let (recent, viewers, formatted) = (Recent::default(), Vec::new(), Vec::new());
        Self { format, supervisor, stdout, files, recent, viewers, formatted }
    }

    /// Starts the thread that writes to stdout.
    pub(super) fn write_to_stdout(&self) {
        let (queue, format, supervisor) = (self.stdout.queue(), self.format, Origin::clone(&self.supervisor));
        let write = move || stdout::write_for_ever(&queue, format, &supervisor);
        // Without the thread nothing is written, but the pipes are emptied and no worker is held up.
        let _ = thread::Builder::new().name("stdout".to_owned()).spawn(write);
    }

    /// Takes one line, which holds no line feed.
    pub(super) fn line(&mut self, origin: &Rc<Origin>, time: Timestamp, line: &[u8]) {
        self.formatted.clear();
        self.format.write(&mut self.formatted, origin, time, line);
        self.stdout.add(&self.formatted);
        if let Some(files) = &mut self.files {
            let file = match origin.stream() {
                Some(Stream::Stdout) => &mut files.out,
                Some(Stream::Stderr) => &mut files.err,
                None => &mut files.supervisor,
            };
            file.add(&self.formatted);
        }
        self.recent.push(origin, time, line);
        for viewer in &mut self.viewers {
            viewer.offer(origin, time, line);
        }
    }

    /// Takes a line of the supervisor's own.
    pub(super) fn line_of_supervisor(&mut self, time: Timestamp, line: &[u8]) {
        self.line(&Rc::clone(&self.supervisor), time, line);
    }

    /// Takes text that is for whoever reads stdout and nobody else: it may hold what is not to be kept.
    pub(super) fn verbatim(&mut self, time: Timestamp, text: &[u8]) {
        if self.format == Format::Pretty {
            self.stdout.add(text);
            return;
        }
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            self.formatted.clear();
            self.format.write(&mut self.formatted, &self.supervisor, time, line);
            self.stdout.add(&self.formatted);
        }
    }

    /// Adds a command that reads the log from now on, or refuses it.
    pub(super) fn add_viewer(&mut self, connection: OwnedFd, wanted: LogsWanted) -> io::Result<()> {
        if self.viewers.len() >= MOST_VIEWERS {
            return viewer::refuse(connection);
        }
        self.viewers.push(Viewer::new(connection, wanted, &self.recent)?);
        Ok(())
    }

    /// The last lines of a process.
    pub(super) fn last_of_process(&self, count: usize, pid: i32) -> Vec<Written> {
        self.recent.last_of_process(count, pid)
    }

    /// Sends everything on its way.
    pub(super) fn flush(&mut self, time: Timestamp) {
        self.stdout.flush();
        for file in self.files.iter_mut().flat_map(Files::all) {
            file.flush();
        }
        for viewer in &mut self.viewers {
            viewer.send(&self.supervisor, time);
        }
        self.viewers.retain(|viewer| !viewer.has_ended());
    }

    /// Has the files opened anew.
    pub(super) fn reopen(&mut self) {
        for file in self.files.iter_mut().flat_map(Files::all) {
            file.reopen();
        }
    }

    /// Waits until everything is written, but not beyond `deadline`.
    pub(super) fn finish(mut self, deadline: Instant) {
        self.flush(Timestamp::now());
        self.stdout.queue().finish(deadline);
        for file in self.files.iter_mut().flat_map(Files::all) {
            file.queue().finish(deadline);
        }
    }
}
