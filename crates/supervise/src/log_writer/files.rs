//! Writes one rotated file, on a thread of its own that a full or stuck disk may hold up for ever.

use std::io;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::line::{Format, Origin};
use super::queue::{Queue, Sender};
use super::rotation::RotatingFile;
use crate::LogFiles;

/// How long a disk that takes nothing is left alone.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The files of all streams.
pub(super) struct Files {
    pub(super) out: Sender,
    pub(super) err: Sender,
    pub(super) supervisor: Sender,
}

struct FileWriter {
    file: RotatingFile,
    queue: Queue,
    /// Where trouble is told.
    stdout: Queue,
    format: Format,
    supervisor: Origin,
    /// The present trouble was told.
    has_complained: bool,
}

impl Files {
    /// Starts the threads. Nothing is created before there is something to write.
    pub(super) fn start(files: &LogFiles, format: Format, supervisor: &Origin, stdout: &Queue) -> Self {
        let start = |name: &str| {
            let sender = Sender::default();
            let writer = FileWriter {
                file: RotatingFile::new(files.directory.join(name), files.max_bytes, files.count),
                queue: sender.queue(),
                stdout: stdout.clone(),
                format,
                supervisor: supervisor.clone(),
                has_complained: false,
            };
            // Without the thread nothing is written, but nobody is held up.
            let _ = thread::Builder::new().name(name.to_owned()).spawn(move || writer.write_for_ever());
            sender
        };
        Self { out: start("out.log"), err: start("err.log"), supervisor: start("supervisor.log") }
    }

    pub(super) fn all(&mut self) -> [&mut Sender; 3] {
        [&mut self.out, &mut self.err, &mut self.supervisor]
    }
}

impl FileWriter {
    fn write_for_ever(mut self) {
        loop {
            let mut work = self.queue.take();
            if work.dropped_lines > 0 {
                let notice = format!("{} lines were dropped, the disk was full or too slow", work.dropped_lines);
                self.format.write(&mut work.text, &self.supervisor, Timestamp::now(), notice.as_bytes());
            }
            self.write(&work.text);
            if work.reopen {
                self.file.close();
            }
            self.queue.done();
        }
    }

    /// Tries until everything is written; meanwhile the queue runs over.
    fn write(&mut self, lines: &[u8]) {
        let mut written = 0;
        while written < lines.len() {
            match self.file.append(&lines[written..]) {
                Ok(count) => {
                    written += count;
                    self.has_complained = false;
                }
                Err(error) => {
                    self.complain(&error);
                    if self.queue.pause(RETRY_AFTER) || self.file.is_moved() {
                        self.file.close();
                        // The new file gets the whole of the line that the old one has a part of.
                        written = lines[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
                    }
                }
            }
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !self.has_complained {
            let notice =
                format!("cannot write {}, which is tried again and again: {error}", self.file.path().display());
            let mut line = Vec::new();
            self.format.write(&mut line, &self.supervisor, Timestamp::now(), notice.as_bytes());
            self.stdout.push(&line, 1);
            self.has_complained = true;
        }
    }
}
