//! Tests of the way to the log's descriptor, with readers that misbehave. The count of dropped lines belongs to the process, so these tests
//! look at what it gained while they hold a lock.

use std::sync::mpsc;

use test_support::eventually;

use super::*;

const SOON: Duration = Duration::from_secs(10);

static COUNTING: Mutex<()> = Mutex::new(());

/// Runs something; how many lines were dropped meanwhile.
fn dropped_by(run: impl FnOnce()) -> u64 {
    let _alone = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = DROPPED.load(Ordering::SeqCst);
    run();
    DROPPED.load(Ordering::SeqCst) - before
}

/// Takes bytes when it is allowed to, and remembers them.
#[derive(Clone, Default)]
struct Reader {
    seen: Arc<Mutex<Vec<u8>>>,
    /// Held by the test to make the writer wait.
    gate: Arc<Mutex<()>>,
}

impl Reader {
    fn text(&self) -> String {
        String::from_utf8(self.seen.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _open = self.gate.lock().unwrap();
        self.seen.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers each write with the next of the given results: a number of bytes taken, or an error.
struct Scripted {
    results: mpsc::Receiver<Result<usize, io::ErrorKind>>,
    seen: Arc<Mutex<Vec<u8>>>,
}

fn scripted(results: &[Result<usize, io::ErrorKind>]) -> (Scripted, Arc<Mutex<Vec<u8>>>) {
    let (sender, receiver) = mpsc::channel();
    results.iter().for_each(|&result| sender.send(result).unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    (Scripted { results: receiver, seen: Arc::clone(&seen) }, seen)
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.results.try_recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
        self.seen.lock().unwrap().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_thousand_lines_from_four_threads_arrive_whole() {
    let reader = Reader::default();
    let output = Output::background(reader.clone()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let output = &output;
            scope.spawn(move || (0..250).for_each(|number| output.write(format!("{thread}:{number}\n").as_bytes())));
        }
    });
    output.flush(SOON);
    let text = reader.text();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 1_000);
}

#[test]
fn a_reader_that_stops_reading_never_stops_the_writer_and_the_overflow_is_counted() {
    let reader = Reader::default();
    let output = Output::background(reader.clone()).unwrap();
    let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
    let dropped = dropped_by(|| {
        let closed = reader.gate.lock().unwrap();
        output.write(b"first\n");
        let Output::Background(queue) = &output else { unreachable!("made above") };
        eventually(SOON, || queue.state().writing);
        let start = std::time::Instant::now();
        (0..3_000).for_each(|_| output.write(&line));
        assert!(start.elapsed() < Duration::from_secs(2));
        output.flush(Duration::from_millis(1));
        drop(closed);
        output.flush(SOON);
    });
    assert_eq!(dropped, 3_000 - 1_024);
    assert_eq!(reader.text().len(), 6 + LONGEST_QUEUE);
}

#[test]
fn a_full_pipe_that_does_not_block_is_tried_again() {
    let (writer, seen) = scripted(&[Err(io::ErrorKind::WouldBlock), Ok(2), Err(io::ErrorKind::Interrupted)]);
    let dropped = dropped_by(|| {
        let output = Output::background(writer).unwrap();
        output.write(b"one line\n");
        output.flush(SOON);
    });
    assert_eq!((dropped, seen.lock().unwrap().as_slice()), (0, &b"one line\n"[..]));
}

#[test]
fn a_reader_that_is_gone_costs_the_line_and_nothing_else() {
    let (writer, seen) = scripted(&[Err(io::ErrorKind::BrokenPipe)]);
    let dropped = dropped_by(|| {
        let output = Output::background(writer).unwrap();
        for line in [b"lost\n", b"read\n"] {
            output.write(line);
            output.flush(SOON);
        }
    });
    assert_eq!((dropped, seen.lock().unwrap().as_slice()), (1, &b"read\n"[..]));
}

#[test]
fn written_directly_a_line_is_taken_whole_or_not_at_all() {
    let (writer, seen) = scripted(&[
        Ok(4),
        Err(io::ErrorKind::WouldBlock),
        // The second line: the rest of the first does not go either.
        Ok(1),
        Err(io::ErrorKind::WouldBlock),
        // The third: the rest goes, and then there is room.
        Ok(100),
        Ok(100),
        // The fourth: nothing at all is taken.
        Err(io::ErrorKind::WouldBlock),
    ]);
    let dropped = dropped_by(|| {
        let output = Output::direct(writer);
        for line in ["first line\n", "second line\n", "third line\n", "fourth line\n", "fifth line\n"] {
            output.write(line.as_bytes());
        }
    });
    let seen = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
    assert_eq!((dropped, seen.as_str()), (2, "first line\nthird line\nfifth line\n"));
}
