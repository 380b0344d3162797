//! Which files make up the log of one life of a container.

use super::log_file;
use std::io;
use std::path::{Path, PathBuf};

/// Rotated files looked for at most.
const MAX_FILES: u32 = 100;

/// The log of one life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) attempt: u32,
    pub(crate) current: PathBuf,
}

impl Life {
    /// Oldest first.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let rotated = |n: u32| PathBuf::from(format!("{}.{n}", self.current.display()));
        let mut files: Vec<PathBuf> = (1..MAX_FILES).map(rotated).take_while(|path| path.exists()).collect();
        files.reverse();
        files.push(self.current.clone());
        files
    }
}

/// The latest life whose log lies in `dir`, or the one before.
pub(crate) fn find(dir: &Path, previous: bool) -> Option<Life> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let mut attempts: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok()).collect();
    attempts.sort_unstable();
    let last = attempts.pop()?;
    let attempt = if previous { attempts.pop()? } else { last };
    Some(Life { attempt, current: log_file(dir, attempt) })
}

/// Where the last `lines` lines begin: the index of a file, and an offset in it.
pub(super) async fn tail_start(files: &[PathBuf], lines: u64) -> io::Result<(usize, u64)> {
    let mut left = lines;
    for (index, path) in files.iter().enumerate().rev() {
        let bytes = match tokio::fs::read(path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let (offset, found) = last_lines(&bytes, left);
        left -= found;
        if left == 0 {
            return Ok((index, offset));
        }
    }
    Ok((0, 0))
}

/// Where the last `lines` whole lines begin, and how many there are. Pieces of a line count with its end.
fn last_lines(bytes: &[u8], lines: u64) -> (u64, u64) {
    let mut found = 0;
    let mut start = bytes.len();
    let mut end = bytes.len();
    while end > 0 {
        let begin = bytes[..end - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole = !is_piece(&bytes[begin..end]);
        if whole && found == lines {
            break;
        }
        found += u64::from(whole);
        start = begin;
        end = begin;
    }
    (start as u64, found)
}

fn is_piece(line: &[u8]) -> bool {
    line.split(|byte| *byte == b' ').nth(2) == Some(b"P")
}
