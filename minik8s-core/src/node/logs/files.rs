//! Which files make up the log of one life of a container.

use super::log_file;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

/// Rotated files looked for at most.
const MAX_FILES: u32 = 100;
/// Numbers that may be missing within a rotation.
const MAX_GAP: u32 = 1;

/// The log of one life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) attempt: u32,
    pub(crate) current: PathBuf,
}

impl Life {
    /// The file itself, or the one it became `number` rotations ago.
    fn path(&self, number: u32) -> PathBuf {
        if number == 0 { self.current.clone() } else { PathBuf::from(format!("{}.{number}", self.current.display())) }
    }

    /// The files there are, the newest first. A rotation moves one after the other, away from the newest: for a moment a
    /// number may be missing, and a file that was seen already may be met again.
    async fn files(&self) -> io::Result<Vec<File>> {
        let mut files: Vec<File> = Vec::new();
        let mut missing = 0;
        for number in 0..MAX_FILES {
            match File::open(self.path(number)).await {
                Ok(file) => {
                    missing = 0;
                    let again = match files.last() {
                        Some(last) => identity(last).await? == identity(&file).await?,
                        None => false,
                    };
                    if !again {
                        files.push(file);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing += 1,
                Err(error) => return Err(error),
            }
            if missing > MAX_GAP {
                break;
            }
        }
        Ok(files)
    }

    pub(super) async fn oldest(&self) -> io::Result<Option<File>> {
        Ok(self.files().await?.pop())
    }

    /// The file that came after this one; where this one is not kept any more, the oldest that is.
    pub(super) async fn newer(&self, than: &File) -> io::Result<Option<File>> {
        let wanted = identity(than).await?;
        let mut newer = None;
        for file in self.files().await? {
            if identity(&file).await? == wanted {
                return Ok(newer);
            }
            newer = Some(file);
        }
        Ok(newer)
    }
}

/// What a file is, whatever its name. No other file gets the number while this one is open.
async fn identity(file: &File) -> io::Result<(u64, u64)> {
    let meta = file.metadata().await?;
    Ok((meta.dev(), meta.ino()))
}

/// The latest life whose log lies in `dir`, or the one before.
pub(crate) fn find(dir: &Path, previous: bool) -> Option<Life> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    // A life whose file is just being rotated has only earlier ones: `<attempt>.log.1`.
    let attempt = |name: &str| name.split_once(".log").and_then(|(attempt, _)| attempt.parse().ok());
    let mut attempts: Vec<u32> = entries.filter_map(|entry| attempt(entry.file_name().to_str()?)).collect();
    attempts.sort_unstable();
    attempts.dedup();
    let last = attempts.pop()?;
    let attempt = if previous { attempts.pop()? } else { last };
    Some(Life { attempt, current: log_file(dir, attempt) })
}

/// Where the last `lines` lines begin: a file, and an offset in it.
pub(super) async fn tail_start(life: &Life, lines: u64) -> io::Result<Option<(File, u64)>> {
    let mut left = lines;
    let mut start = None;
    for mut file in life.files().await? {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).await?;
        let (offset, found) = last_lines(&bytes, left);
        left -= found;
        start = Some((file, offset));
        if left == 0 {
            break;
        }
    }
    Ok(start)
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
