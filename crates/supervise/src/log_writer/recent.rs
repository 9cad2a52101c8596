//! The last lines, in memory that is bounded over all sources.

use std::collections::VecDeque;
use std::rc::Rc;

use jiff::Timestamp;

use super::line::Origin;

/// The most text that is kept.
const KEPT_BYTES: usize = 1 << 20;

/// The most lines that are kept.
const KEPT_LINES: usize = 5_000;

/// Of how many processes of one name lines are kept: the one before serves while its successor starts, and both may be gone
/// when somebody asks.
const KEPT_PROCESSES: usize = 3;

/// A source's memory is given back when less than a part of it is in use, and it is more than this.
const WORTH_GIVING_BACK: usize = 16 * 1024;

/// The last lines of every source. Whoever has most makes room for new ones, so a talkative source does not push out what
/// a quiet one has said.
#[derive(Default)]
pub(super) struct Recent {
    sources: Vec<Source>,
    bytes: usize,
    lines: usize,
    next_number: u64,
}

/// The lines of one process, the newest last.
struct Source {
    name: String,
    pid: i32,
    text: VecDeque<u8>,
    lines: VecDeque<Line>,
}

struct Line {
    /// Orders the lines of all sources.
    number: u64,
    origin: Rc<Origin>,
    time: Timestamp,
    bytes: usize,
}

/// One line as it was written.
pub(super) struct Written {
    pub(super) origin: Rc<Origin>,
    pub(super) time: Timestamp,
    pub(super) line: Vec<u8>,
    number: u64,
}

impl Recent {
    pub(super) fn push(&mut self, origin: &Rc<Origin>, time: Timestamp, line: &[u8]) {
        let number = self.next_number;
        self.next_number += 1;
        let index = match self.sources.iter().position(|source| source.pid == origin.pid()) {
            Some(known) => known,
            None => self.add_source(origin),
        };
        let source = &mut self.sources[index];
        source.text.extend(line);
        source.lines.push_back(Line { number, origin: Rc::clone(origin), time, bytes: line.len() });
        self.bytes += line.len();
        self.lines += 1;
        self.make_room();
    }

    /// Makes room for the lines of a new process at the expense of the oldest of its name.
    fn add_source(&mut self, origin: &Origin) -> usize {
        let mut namesakes = self.sources.iter().enumerate().filter(|(_, source)| source.name == origin.name());
        let oldest = namesakes.next().map(|(index, _)| index);
        if let Some(oldest) = oldest.filter(|_| namesakes.count() + 1 >= KEPT_PROCESSES) {
            let gone = self.sources.remove(oldest);
            self.bytes -= gone.text.len();
            self.lines -= gone.lines.len();
        }
        self.sources.push(Source::new(origin));
        self.sources.len() - 1
    }

    /// The last `count` lines, the newest last, of the source of this name, or of all.
    pub(super) fn last(&self, count: usize, name: Option<&str>) -> Vec<Written> {
        self.last_that(count, |origin| name.is_none_or(|name| origin.name() == name))
    }

    /// The last `count` lines of one process, the newest last.
    pub(super) fn last_of_process(&self, count: usize, pid: i32) -> Vec<Written> {
        self.last_that(count, |origin| origin.pid() == pid)
    }

    fn last_that(&self, count: usize, is_wanted: impl Fn(&Origin) -> bool) -> Vec<Written> {
        let mut found: Vec<_> = self.sources.iter().flat_map(|source| source.last(count, &is_wanted)).collect();
        found.sort_unstable_by_key(|written| written.number);
        found.split_off(found.len().saturating_sub(count))
    }

    fn make_room(&mut self) {
        while self.bytes > KEPT_BYTES || self.lines > KEPT_LINES {
            let too_long = self.bytes > KEPT_BYTES;
            let share = |source: &Source| if too_long { source.text.len() } else { source.lines.len() };
            let Some(largest) = self.sources.iter_mut().max_by_key(|source| share(source)) else { return };
            self.bytes -= largest.forget_oldest();
            self.lines -= 1;
            self.sources.retain(|source| !source.lines.is_empty());
        }
    }
}

impl Source {
    fn new(origin: &Origin) -> Self {
        Self { name: origin.name().to_owned(), pid: origin.pid(), text: VecDeque::new(), lines: VecDeque::new() }
    }

    /// Tells how much text is gone.
    fn forget_oldest(&mut self) -> usize {
        let bytes = self.lines.pop_front().map_or(0, |line| line.bytes);
        self.text.drain(..bytes);
        if self.text.capacity() > WORTH_GIVING_BACK.max(4 * self.text.len()) {
            self.text.shrink_to(2 * self.text.len());
        }
        bytes
    }

    fn last(&self, count: usize, is_wanted: impl Fn(&Origin) -> bool) -> Vec<Written> {
        let mut end = self.text.len();
        let mut found = Vec::new();
        for line in self.lines.iter().rev() {
            let start = end - line.bytes;
            if is_wanted(&line.origin) && found.len() < count {
                let text = self.text.range(start..end).copied().collect();
                let origin = Rc::clone(&line.origin);
                found.push(Written { origin, time: line.time, line: text, number: line.number });
            }
            end = start;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::Unit;
    use crate::log_writer::line::{Author, Stream};

    fn origin(slot: u32) -> Rc<Origin> {
        let author = Author::of(Unit::Worker(slot), format!("w{slot}"), 100 + slot as i32, 1);
        Rc::new(Origin::new(author, Some(Stream::Stderr)))
    }

    fn texts(lines: &[Written]) -> Vec<String> {
        lines.iter().map(|written| String::from_utf8(written.line.clone()).unwrap()).collect()
    }

    #[test]
    fn the_last_lines_come_in_the_order_in_which_they_were_written() {
        let mut recent = Recent::default();
        for (slot, line) in [(0, "a"), (1, "b"), (0, ""), (1, "d"), (0, "e")] {
            recent.push(&origin(slot), Timestamp::UNIX_EPOCH, line.as_bytes());
        }
        assert_eq!(texts(&recent.last(4, None)), ["b", "", "d", "e"]);
        assert_eq!(texts(&recent.last(9, Some("w0"))), ["a", "", "e"]);
        assert_eq!(texts(&recent.last_of_process(1, 101)), ["d"]);
        assert!(recent.last(0, None).is_empty() && recent.last(9, Some("w2")).is_empty());
    }

    #[test]
    fn a_talkative_source_does_not_push_out_what_a_quiet_one_has_said() {
        let mut recent = Recent::default();
        let (quiet, talkative) = (origin(0), origin(1));
        recent.push(&quiet, Timestamp::UNIX_EPOCH, b"a last word");
        for _ in 0..3 * KEPT_LINES {
            recent.push(&talkative, Timestamp::UNIX_EPOCH, &[b'x'; 300]);
        }
        assert_eq!(texts(&recent.last(9, Some("w0"))), ["a last word"]);
    }

    #[test]
    fn a_successor_is_heard_beside_its_talkative_predecessor_and_the_oldest_of_a_name_is_forgotten() {
        let process = |pid| {
            let author = Author::of(Unit::Worker(0), "w0".to_owned(), pid, pid as u32);
            Rc::new(Origin::new(author, Some(Stream::Stdout)))
        };
        let mut recent = Recent::default();
        recent.push(&process(2), Timestamp::UNIX_EPOCH, b"it cannot start");
        for _ in 0..3 * KEPT_LINES {
            recent.push(&process(1), Timestamp::UNIX_EPOCH, b"a request");
        }
        assert_eq!(texts(&recent.last_of_process(9, 2)), ["it cannot start"]);
        recent.push(&process(3), Timestamp::UNIX_EPOCH, b"third");
        recent.push(&process(4), Timestamp::UNIX_EPOCH, b"fourth");
        assert!(recent.last_of_process(9, 2).is_empty());
        assert_eq!(texts(&recent.last(3, Some("w0"))), ["a request", "third", "fourth"]);
        assert_eq!(recent.lines, KEPT_LINES);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn memory_is_bounded_and_the_newest_lines_are_whole(
            lines in proptest::collection::vec((0..6_u32, 0..16_384_usize), 1..400),
        ) {
            let mut recent = Recent::default();
            let origins: Vec<_> = (0..6).map(origin).collect();
            for (slot, length) in &lines {
                let line = vec![b'a' + *slot as u8; *length];
                recent.push(&origins[*slot as usize], Timestamp::UNIX_EPOCH, &line);
                prop_assert!(recent.bytes <= KEPT_BYTES && recent.lines <= KEPT_LINES);
            }
            let kept: usize = recent.sources.iter().map(|source| source.text.len()).sum();
            let memory: usize = recent.sources.iter().map(|source| source.text.capacity()).sum();
            prop_assert_eq!(kept, recent.bytes);
            prop_assert!(memory <= 4 * KEPT_BYTES + 6 * WORTH_GIVING_BACK, "{}", memory);
            let last = recent.last(5, None);
            let newest = &lines[lines.len() - last.len()..];
            for (written, (slot, length)) in last.iter().zip(newest) {
                prop_assert_eq!(&written.line, &vec![b'a' + *slot as u8; *length]);
            }
        }
    }
}
