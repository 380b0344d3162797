//! Frames: what a log or a snapshot file is made of, and how damage is told from an unfinished write.
//!
//! ```text
//! file  = magic 8 · salt 8 · revision 8 · crc 4, then frames
//! frame = mark 4 · length 4 · crc 4 · payload
//! ```
//! All numbers are little-endian. The mark and the checksum depend on the file's random salt, so nothing that a user
//! stores can be mistaken for a frame. One frame is one synced write and the next is written only after that: a bad
//! frame with a good one behind it is therefore damage, while a bad one at the end is a write that was cut short and
//! never acknowledged.

use super::error::OpenError;
use crate::api::Revision;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

pub(super) const HEADER: usize = 28;
const FRAME_HEADER: usize = 12;
const ZEROS: [u8; 4096] = [0; 4096];

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Log,
    Snapshot,
}

impl FileKind {
    /// Kind and format version.
    fn magic(self) -> &'static [u8; 8] {
        match self {
            FileKind::Log => b"mk8slog1",
            FileKind::Snapshot => b"mk8ssnp1",
        }
    }
}

/// What every frame of a file is checked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt(u64);

impl Salt {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }

    /// Never zero, as the unwritten part of a file is.
    fn mark(self) -> [u8; 4] {
        let high = u32::try_from(self.0 >> 32).unwrap_or_default();
        (high | 1).to_le_bytes()
    }

    fn checksum(self, payload: &[u8]) -> [u8; 4] {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.0.to_le_bytes());
        hasher.update(&(payload.len() as u64).to_le_bytes());
        hasher.update(payload);
        hasher.finalize().to_le_bytes()
    }
}

/// The first bytes of a file.
pub(super) fn file_header(kind: FileKind, salt: Salt, revision: Revision) -> Vec<u8> {
    let mut header = kind.magic().to_vec();
    header.extend(salt.0.to_le_bytes());
    header.extend(revision.to_le_bytes());
    let checksum = crc32fast::hash(&header);
    header.extend(checksum.to_le_bytes());
    header
}

/// Makes room for a frame's header; the payload is appended behind it.
pub(super) fn begin_frame(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(FRAME_HEADER, 0);
}

/// Fills in the header of the frame in `buffer`. False where the payload is too large for one.
pub(super) fn finish_frame(buffer: &mut [u8], salt: Salt) -> bool {
    let Some((header, payload)) = buffer.split_first_chunk_mut::<FRAME_HEADER>() else { return false };
    let Ok(length) = u32::try_from(payload.len()) else { return false };
    let parts = [salt.mark(), length.to_le_bytes(), salt.checksum(payload)];
    header.iter_mut().zip(parts.iter().flatten()).for_each(|(to, from)| *to = *from);
    true
}

/// What stands at a position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A good frame's payload.
    Payload(Vec<u8>),
    /// The end of what was written; everything behind it was never acknowledged.
    End,
}

/// Reads a file frame by frame.
pub(super) struct Frames {
    input: BufReader<File>,
    path: PathBuf,
    salt: Salt,
    length: u64,
    offset: u64,
}

impl Frames {
    /// Opens a file and checks that it is what its name says.
    pub(super) fn open(path: &Path, kind: FileKind, revision: Revision) -> Result<Self, OpenError> {
        let file = File::open(path).map_err(OpenError::io("open", path))?;
        let length = file.metadata().map_err(OpenError::io("read", path))?.len();
        let mut input = BufReader::with_capacity(1 << 16, file);
        let mut header = [0; HEADER];
        input.read_exact(&mut header).map_err(|_| OpenError::corrupt(path, 0, "the file has no header"))?;
        let salt = header.get(8..16).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes).map(Salt);
        let salt = salt.filter(|salt| header == file_header(kind, *salt, revision).as_slice());
        let why = "the header does not fit the file's name or this version's format";
        let salt = salt.ok_or_else(|| OpenError::corrupt(path, 0, why))?;
        Ok(Self { input, path: path.to_owned(), salt, length, offset: HEADER as u64 })
    }

    pub(super) fn salt(&self) -> Salt {
        self.salt
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn corrupt(&self, why: impl Into<String>) -> OpenError {
        OpenError::corrupt(&self.path, self.offset, why)
    }

    /// The next frame, for a file that may end in an unfinished write.
    pub(super) fn next(&mut self) -> Result<Step, OpenError> {
        let mut rest = self.read_up_to(FRAME_HEADER as u64)?;
        let left = self.length.saturating_sub(self.offset + FRAME_HEADER as u64);
        if let Some(length) = frame_length(&rest, self.salt).filter(|length| *length <= left) {
            rest.extend(self.read_up_to(length)?);
            if let Some(payload) = good_payload(&rest, self.salt) {
                self.offset += rest.len() as u64;
                return Ok(Step::Payload(payload.to_vec()));
            }
        }
        rest.extend(self.read_up_to(u64::MAX)?);
        match find_frame(rest.get(1..).unwrap_or_default(), self.salt) {
            Some(behind) => Err(self.corrupt(format!("a complete record follows {} bytes later", behind + 1))),
            None => Ok(Step::End),
        }
    }

    /// The next frame, for a file that was finished: anything but a clean end is damage.
    pub(super) fn next_strict(&mut self) -> Result<Step, OpenError> {
        match self.next()? {
            Step::End if self.offset != self.length => Err(self.corrupt("a record is incomplete or was changed")),
            step => Ok(step),
        }
    }

    fn read_up_to(&mut self, limit: u64) -> Result<Vec<u8>, OpenError> {
        let mut bytes = Vec::new();
        (&mut self.input).take(limit).read_to_end(&mut bytes).map_err(OpenError::io("read", &self.path))?;
        Ok(bytes)
    }
}

fn frame_length(bytes: &[u8], salt: Salt) -> Option<u64> {
    let (mark, rest) = bytes.split_first_chunk::<4>()?;
    let (length, _) = rest.split_first_chunk::<4>()?;
    (*mark == salt.mark()).then_some(u64::from(u32::from_le_bytes(*length)))
}

/// The payload of the frame that `bytes` begins with, where it is complete and unharmed.
fn good_payload(bytes: &[u8], salt: Salt) -> Option<&[u8]> {
    let length = usize::try_from(frame_length(bytes, salt)?).ok()?;
    let payload = bytes.get(FRAME_HEADER..FRAME_HEADER.checked_add(length)?)?;
    (bytes.get(8..FRAME_HEADER)? == salt.checksum(payload)).then_some(payload)
}

/// Where a good frame begins in `bytes`.
fn find_frame(bytes: &[u8], salt: Salt) -> Option<usize> {
    // The usual case: the room that the log made for what comes next.
    if bytes.chunks(ZEROS.len()).all(|chunk| ZEROS.starts_with(chunk)) {
        return None;
    }
    let mark = salt.mark();
    let candidates = bytes.windows(mark.len()).enumerate().filter(|(_, window)| *window == mark);
    candidates.map(|(at, _)| at).find(|at| bytes.get(*at..).is_some_and(|b| good_payload(b, salt).is_some()))
}
