//! The log file: appended to entry by entry, rotated between entries. A container whose log nobody reads would stand
//! still, so once the file is open nothing here fails: what cannot be written is lost, and the file is opened anew.

use super::Order;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(super) struct LogWriter {
    path: PathBuf,
    max_bytes: u64,
    max_files: u32,
    /// `None` after something failed, until the next entry.
    file: Option<File>,
    size: u64,
    buffer: Vec<u8>,
}

impl LogWriter {
    /// Opens the file for appending, making it and its directory where they are missing.
    pub(super) fn open(order: &Order) -> io::Result<Self> {
        let Order { path, max_bytes, max_files, .. } = order.clone();
        let mut this = Self { path, max_bytes, max_files, file: None, size: 0, buffer: Vec::new() };
        this.reopen()?;
        Ok(this)
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = append(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn is_open(&mut self) -> bool {
        self.file.is_some() || self.reopen().is_ok()
    }

    pub(super) fn append(&mut self, entry: &[u8]) {
        if !self.is_open() {
            return;
        }
        let ahead = self.size + (self.buffer.len() + entry.len()) as u64;
        if self.max_bytes > 0 && ahead > self.max_bytes && ahead > entry.len() as u64 {
            self.flush();
            if self.rotate().is_err() {
                self.file = None;
            }
        }
        self.buffer.extend_from_slice(entry);
    }

    /// Writes what was appended; entries of one read reach the file in one call.
    pub(super) fn flush(&mut self) {
        if !self.buffer.is_empty() && self.is_open() && self.write().is_err() {
            self.file = None;
        }
        self.buffer.clear();
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if let Err(error) = file.write_all(&self.buffer) {
            // Half an entry would spoil the next one.
            if file.metadata()?.len() > self.size {
                file.set_len(self.size)?;
            }
            return Err(error);
        }
        self.size += self.buffer.len() as u64;
        Ok(())
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`, and so on; the one too many goes.
    fn rotate(&mut self) -> io::Result<()> {
        let older = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        let keep = self.max_files.saturating_sub(1);
        for n in (1..keep).rev() {
            ignore_missing(fs::rename(older(n), older(n + 1)))?;
        }
        if keep > 0 {
            ignore_missing(fs::rename(&self.path, older(1)))?
        } else {
            ignore_missing(fs::remove_file(&self.path))?
        }
        self.file = None;
        self.reopen()
    }
}

fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).append(true).mode(0o640).open(path)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(dir: &Path, max_bytes: u64, max_files: u32) -> Order {
        Order { path: dir.join("pod/c.log"), max_bytes, max_files, ..Order::default() }
    }

    #[test]
    fn rotates_between_entries_and_keeps_as_many_files_as_told() {
        let dir = tempfile::tempdir().expect("dir");
        let order = order(dir.path(), 10, 3);
        let mut writer = LogWriter::open(&order).expect("open");
        for n in 0..6 {
            writer.append(format!("entry{n}\n").as_bytes());
        }
        writer.flush();
        let read = |suffix: &str| fs::read_to_string(format!("{}{suffix}", order.path.display())).ok();
        let texts: Vec<_> = ["", ".1", ".2", ".3"].map(read).into();
        let text = |n: u32| Some(format!("entry{n}\n"));
        assert_eq!(texts, [text(5), text(4), text(3), None]);
    }

    #[test]
    fn goes_on_in_the_file_it_finds() {
        let dir = tempfile::tempdir().expect("dir");
        let order = order(dir.path(), 0, 0);
        for text in ["a\n", "b\n"] {
            let mut writer = LogWriter::open(&order).expect("open");
            writer.append(text.as_bytes());
            writer.flush();
        }
        assert_eq!(fs::read_to_string(&order.path).expect("log"), "a\nb\n");
    }

    #[test]
    fn an_entry_beyond_the_limit_still_has_a_file_to_itself() {
        let dir = tempfile::tempdir().expect("dir");
        let order = order(dir.path(), 4, 2);
        let mut writer = LogWriter::open(&order).expect("open");
        writer.append(b"longer than four\n");
        writer.flush();
        assert_eq!(fs::read_to_string(&order.path).expect("log"), "longer than four\n");
        assert!(!PathBuf::from(format!("{}.1", order.path.display())).exists());
    }

    #[test]
    fn what_cannot_be_written_is_lost_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().expect("dir");
        let order = order(dir.path(), 10, 2);
        fs::create_dir(dir.path().join("pod")).expect("mkdir");
        std::os::unix::fs::symlink("/dev/full", &order.path).expect("link");
        let mut writer = LogWriter::open(&order).expect("open");
        writer.append(b"lost\n");
        writer.flush();
        fs::remove_file(&order.path).expect("unlink");
        writer.append(b"entry1\n");
        writer.flush();
        assert_eq!(fs::read_to_string(&order.path).expect("log"), "entry1\n");
        // Nothing can be rotated, nothing can be opened.
        fs::remove_dir_all(dir.path().join("pod")).expect("remove");
        fs::write(dir.path().join("pod"), "").expect("write");
        writer.append(b"entry2\n");
        writer.flush();
        fs::remove_file(dir.path().join("pod")).expect("remove");
        writer.append(b"entry3\n");
        writer.flush();
        assert_eq!(fs::read_to_string(&order.path).expect("log"), "entry3\n");
    }
}
