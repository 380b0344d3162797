//! The end of the log: where commits become durable.

use super::frame::{self, FileKind, HEADER, Salt};
use crate::api::Revision;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// The file grows by this much at a time: a sync that need not record a new size takes a third less.
const STEP: u64 = 1 << 20;

/// What a log needs of its file; tests put a failing one in its place.
pub(super) trait Medium: Send {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> std::io::Result<()>;
    fn sync(&mut self) -> std::io::Result<()>;
    fn set_len(&mut self, length: u64) -> std::io::Result<()>;
}

impl Medium for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.sync_data()
    }

    fn set_len(&mut self, length: u64) -> std::io::Result<()> {
        File::set_len(self, length)
    }
}

/// Why a frame was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    /// Nothing of it is left in the file; the log goes on.
    #[error("nothing was written: {0}")]
    Refused(std::io::Error),
    /// It may or may not be on disk: after a failed sync nobody knows. The log takes no more.
    #[error("the log failed: {0}")]
    Broken(std::io::Error),
    /// The log broke earlier.
    #[error("the log failed earlier; open the store again")]
    Closed,
}

/// An open log file.
pub(super) struct Log {
    medium: Box<dyn Medium>,
    salt: Salt,
    /// Where the next frame goes.
    end: u64,
    /// How large the file is.
    allocated: u64,
    buffer: Vec<u8>,
    broken: bool,
}

/// Writes the header of a new log file.
pub(super) fn write_header(file: &mut File, revision: Revision) -> std::io::Result<Salt> {
    let salt = Salt::random();
    file.write_all(&frame::file_header(FileKind::Log, salt, revision))?;
    Ok(salt)
}

impl Log {
    /// A log that is empty but for its header.
    pub(super) fn new(medium: impl Medium + 'static, salt: Salt) -> Self {
        let end = HEADER as u64;
        Self { medium: Box::new(medium), salt, end, allocated: end, buffer: Vec::new(), broken: false }
    }

    /// A log that goes on at `end`. Whatever an unfinished write left behind it is wiped out.
    pub(super) fn resume(mut medium: impl Medium + 'static, salt: Salt, end: u64) -> std::io::Result<Self> {
        medium.set_len(end)?;
        medium.sync()?;
        Ok(Self { end, allocated: end, ..Self::new(medium, salt) })
    }

    /// Bytes written so far.
    pub(super) fn len(&self) -> u64 {
        self.end
    }

    /// Writes one frame, filled by `fill`, and returns when it is on disk.
    pub(super) fn append(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), LogError> {
        if self.broken {
            return Err(LogError::Closed);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        frame::begin_frame(&mut buffer);
        fill(&mut buffer);
        let result = self.write(&mut buffer);
        // One huge commit must not cost memory for ever.
        buffer.shrink_to(1 << 20);
        self.buffer = buffer;
        result
    }

    fn write(&mut self, buffer: &mut [u8]) -> Result<(), LogError> {
        if !frame::finish_frame(buffer, self.salt) {
            return Err(LogError::Refused(std::io::ErrorKind::FileTooLarge.into()));
        }
        let end = self.end + buffer.len() as u64;
        if let Err(error) = self.grow_to(end).and_then(|()| self.medium.write_at(buffer, self.end)) {
            return Err(self.take_back(error));
        }
        if let Err(error) = self.medium.sync() {
            self.broken = true;
            return Err(LogError::Broken(error));
        }
        self.end = end;
        Ok(())
    }

    fn grow_to(&mut self, end: u64) -> std::io::Result<()> {
        if end > self.allocated {
            let allocated = end.next_multiple_of(STEP);
            self.medium.set_len(allocated)?;
            self.allocated = allocated;
        }
        Ok(())
    }

    /// Removes what a failed write may have left, so that a full disk does not end the store.
    fn take_back(&mut self, error: std::io::Error) -> LogError {
        let wiped = self.medium.set_len(self.end).and_then(|()| self.medium.sync());
        self.allocated = self.end;
        self.broken = wiped.is_err();
        if self.broken { LogError::Broken(error) } else { LogError::Refused(error) }
    }

    /// Ends the file where its frames end: it will not be written again.
    pub(super) fn seal(&mut self) -> std::io::Result<()> {
        self.medium.set_len(self.end)?;
        self.medium.sync()?;
        self.allocated = self.end;
        Ok(())
    }
}
