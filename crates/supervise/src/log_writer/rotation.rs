//! A file of lines that is replaced by a new one before it grows too large.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// `out.log`, with `out.log.1` and so on behind it, the oldest last. Opened at the first line.
pub(super) struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    count: u32,
    open: Option<Open>,
}

struct Open {
    file: File,
    size: u64,
    /// What was written last is not a whole line: the disk was full.
    is_within_line: bool,
}

impl RotatingFile {
    /// At most `count` files of at most `max_bytes`, but for a single line that is longer.
    pub(super) fn new(path: PathBuf, max_bytes: u64, count: u32) -> Self {
        Self { path, max_bytes, count: count.max(1), open: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the beginning of `lines` and tells how much that was. Only its first line may be the rest of one, which this
    /// has begun.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<usize> {
        let first = lines.iter().position(|&byte| byte == b'\n').map_or(lines.len(), |end| end + 1);
        let max_bytes = self.max_bytes;
        let open = self.opened()?;
        if !open.is_within_line && open.size > 0 && open.size + first as u64 > max_bytes {
            self.rotate()?;
        }
        let open = self.opened()?;
        let room = usize::try_from(max_bytes.saturating_sub(open.size)).unwrap_or(usize::MAX).min(lines.len());
        let whole = lines[..room].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let piece = if open.is_within_line { &lines[..first] } else { &lines[..whole.max(first)] };
        open.write(piece)
    }

    /// Finishes with the file; the next line opens what lies at its path then.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Whether something else, or nothing, lies at its path.
    pub(super) fn is_moved(&self) -> bool {
        let Some(open) = &self.open else { return false };
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        fs::metadata(&self.path).ok().map(identity) != open.file.metadata().ok().map(identity)
    }

    fn opened(&mut self) -> io::Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::at(&self.path)?,
        };
        Ok(self.open.insert(open))
    }

    /// Moves every file to the next number. A file that is not there leaves a gap that closes in time.
    fn rotate(&mut self) -> io::Result<()> {
        self.close();
        // Those a larger count has left behind, too.
        let mut beyond = self.count.max(2) - 1;
        while fs::remove_file(self.numbered(beyond)).is_ok() {
            beyond += 1;
        }
        for number in (0..self.count - 1).rev() {
            unless_missing(fs::rename(self.numbered(number), self.numbered(number + 1)))?;
        }
        if self.count == 1 { unless_missing(fs::remove_file(&self.path)) } else { Ok(()) }
    }

    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut path = OsString::from(&self.path);
        path.push(format!(".{number}"));
        path.into()
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().unwrap_or(Path::new("."));
                DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
                options.open(path)?
            }
            result => result?,
        };
        let mut size = file.metadata()?.len();
        let mut last = [b'\n'];
        if size > 0 && file.read_exact_at(&mut last, size - 1).is_ok() && last != *b"\n" {
            // Somebody was killed within a line; the next one is not to be joined to it.
            file.write_all(b"\n")?;
            size += 1;
        }
        Ok(Self { file, size, is_within_line: false })
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let count = loop {
            match self.file.write(piece) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        self.size += count as u64;
        self.is_within_line = piece[count - 1] != b'\n';
        Ok(count)
    }
}

fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn file(directory: &TempDir, max_bytes: u64, count: u32) -> RotatingFile {
        RotatingFile::new(directory.path().join("logs/out.log"), max_bytes, count)
    }

    fn append_all(file: &mut RotatingFile, lines: &[u8]) {
        let mut rest = lines;
        while !rest.is_empty() {
            let count = file.append(rest).unwrap();
            rest = &rest[count..];
        }
    }

    /// All files, the oldest first.
    fn texts(file: &RotatingFile) -> Vec<String> {
        let rotated = (1..).map(|number| file.numbered(number)).take_while(|path| path.exists());
        let mut paths: Vec<_> = [file.path.clone()].into_iter().chain(rotated).collect();
        paths.reverse();
        paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn rotation_loses_and_splits_no_line_and_keeps_files_small(
            batches in proptest::collection::vec(proptest::collection::vec(0..60_usize, 1..12), 1..12),
            max_bytes in 1..200_u64,
            reopened in proptest::collection::vec(any::<bool>(), 12),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut file = file(&directory, max_bytes, 1_000);
            let mut all = String::new();
            for (batch, reopened) in batches.iter().zip(reopened) {
                let lines: String = batch.iter().map(|length| format!("{}\n", "x".repeat(*length))).collect();
                append_all(&mut file, lines.as_bytes());
                all += &lines;
                if reopened {
                    file.close();
                }
            }
            let texts = texts(&file);
            prop_assert_eq!(texts.concat(), all);
            for text in texts {
                prop_assert!(text.ends_with('\n'), "a line is split");
                prop_assert!(text.len() as u64 <= max_bytes || text.matches('\n').count() == 1, "{} bytes", text.len());
            }
        }
    }

    #[test]
    fn there_are_never_more_files_than_wanted_and_the_oldest_go_first() {
        for count in 1..4 {
            let directory = tempfile::tempdir().unwrap();
            let mut more = file(&directory, 4, 6);
            append_all(&mut more, b"aaa\nbbb\nccc\nddd\neee\nfff\n");
            assert_eq!(texts(&more).len(), 6);
            let mut file = file(&directory, 4, count);
            append_all(&mut file, b"ggg\n");
            let newest = ["eee\n", "fff\n", "ggg\n"];
            assert_eq!(texts(&file), newest[newest.len() - count as usize..]);
            assert_eq!(fs::read_dir(directory.path().join("logs")).unwrap().count(), count as usize);
        }
    }

    #[test]
    fn nobody_else_may_read_the_files() {
        let directory = tempfile::tempdir().unwrap();
        append_all(&mut file(&directory, 100, 2), b"secret\n");
        let mode = |path: &str| fs::metadata(directory.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("logs"), mode("logs/out.log")), (0o700, 0o600));
    }

    #[test]
    fn a_line_that_was_written_in_part_is_finished_in_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = file(&directory, 6, 9);
        assert_eq!(file.append(b"half").unwrap(), 4);
        append_all(&mut file, b" a line\nnext\n");
        assert_eq!(texts(&file), ["half a line\n", "next\n"]);
    }

    #[test]
    fn a_line_that_somebody_left_unfinished_is_not_joined_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("logs")).unwrap();
        fs::write(directory.path().join("logs/out.log"), "killed in the mid").unwrap();
        let mut file = file(&directory, 100, 2);
        append_all(&mut file, b"next\n");
        assert_eq!(texts(&file), ["killed in the mid\nnext\n"]);
    }

    #[test]
    fn a_file_that_was_moved_away_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = file(&directory, 100, 2);
        append_all(&mut file, b"one\n");
        assert!(!file.is_moved());
        fs::rename(&file.path, directory.path().join("elsewhere")).unwrap();
        assert!(file.is_moved());
        file.close();
        fs::remove_dir(directory.path().join("logs")).unwrap();
        append_all(&mut file, b"two\n");
        assert_eq!(texts(&file), ["two\n"]);
    }
}
