//! Following a container's log as it is written, through rotations, without polling.

use bytes::Bytes;
use minik8s_core::runtime::Output;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use tokio::io::unix::AsyncFd;

/// A reader at the end of a log.
pub(super) struct LogTail {
    path: PathBuf,
    file: Option<File>,
    watch: AsyncFd<crate::sys::Watch>,
    pending: Vec<u8>,
}

impl LogTail {
    /// Begins at the present end of the log, which need not exist yet (its directory must).
    pub(super) fn at_end(path: PathBuf) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let dir = path.parent().ok_or_else(|| io::Error::other("a log file needs a directory"))?;
        inotify.add_watch(dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_FROM)?;
        let mut file = File::open(&path).ok();
        if let Some(file) = &mut file {
            file.seek(SeekFrom::End(0))?;
        }
        Ok(Self { path, file, watch: crate::sys::watch(inotify)?, pending: Vec::new() })
    }

    /// Waits until something happens to the log.
    pub(super) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.watch.readable().await?;
            match ready.try_io(|watch| watch.get_ref().read_events().map_err(io::Error::from)) {
                Ok(events) => return events.map(drop),
                Err(_) => continue,
            }
        }
    }

    /// What was written since the last call.
    pub(super) fn read(&mut self) -> io::Result<Vec<Output>> {
        let mut outputs = Vec::new();
        loop {
            if let Some(file) = &mut self.file {
                file.read_to_end(&mut self.pending)?;
            }
            take_entries(&mut self.pending, &mut outputs);
            if !self.reopen()? {
                return Ok(outputs);
            }
        }
    }

    /// True where the path leads to another file now.
    fn reopen(&mut self) -> io::Result<bool> {
        let Ok(fresh) = File::open(&self.path) else { return Ok(false) };
        let same = match &self.file {
            Some(old) => old.metadata()?.ino() == fresh.metadata()?.ino(),
            None => false,
        };
        if !same {
            self.file = Some(fresh);
        }
        Ok(!same)
    }
}

fn take_entries(pending: &mut Vec<u8>, outputs: &mut Vec<Output>) {
    let Some(end) = pending.iter().rposition(|b| *b == b'\n') else { return };
    let rest = pending.split_off(end + 1);
    let whole = std::mem::replace(pending, rest);
    outputs.extend(whole.split_inclusive(|b| *b == b'\n').filter_map(entry));
}

/// `<time> <stream> <tag> <text>\n`; the line end belongs to the text where the tag says that the line is full.
fn entry(line: &[u8]) -> Option<Output> {
    let mut fields = line.splitn(4, |b| *b == b' ');
    let (stream, tag) = (fields.nth(1)?, fields.next()?);
    let text = fields.next()?;
    let text = if tag.starts_with(b"P") { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
    let bytes = Bytes::copy_from_slice(text);
    match stream {
        b"stderr" => Some(Output::Stderr(bytes)),
        _ => Some(Output::Stdout(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_become_the_bytes_that_were_written() {
        let mut pending = b"T stdout P $ \nT stdout F ls -l\nT stderr F no\nT stdout F torn".to_vec();
        let mut outputs = Vec::new();
        take_entries(&mut pending, &mut outputs);
        let out = |t: &'static str| Output::Stdout(Bytes::from_static(t.as_bytes()));
        assert_eq!(outputs, [out("$ "), out("ls -l\n"), Output::Stderr(Bytes::from_static(b"no\n"))]);
        assert_eq!(pending, b"T stdout F torn");
    }

    #[tokio::test]
    async fn a_tail_follows_through_rotation() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("c.log");
        std::fs::write(&path, "T stdout F old\n").expect("write");
        let mut tail = LogTail::at_end(path.clone()).expect("tail");
        assert_eq!(tail.read().expect("read"), []);
        let mut file = File::options().append(true).open(&path).expect("open");
        io::Write::write_all(&mut file, b"T stdout F one\n").expect("write");
        std::fs::rename(&path, dir.path().join("c.log.1")).expect("rename");
        std::fs::write(&path, "T stdout F two\n").expect("write");
        tail.changed().await.expect("changed");
        let out = |t: &'static str| Output::Stdout(Bytes::from_static(t.as_bytes()));
        assert_eq!(tail.read().expect("read"), [out("one\n"), out("two\n")]);
    }
}
