//! Snapshots: the whole state at one revision in one file, so that the log before it can go. Written beside the running
//! store in small steps, while commits go on.

use super::directory::Directory;
use super::error::OpenError;
use super::frame::{self, FileKind, Frames, Salt, Step};
use super::record::{self, Lifetime, Record};
use crate::api::Revision;
use crate::store::engine::{Engine, State};
use crate::store::{Entry, Key};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Entries per step: the state is locked for as long as it takes to collect these.
const STEP: usize = 512;

/// A key's remaining lifetime, as of the revision that wrote it.
pub(super) type Remaining = (Key, Revision, Duration);

/// Writes the state at `revision`, which must be pinned, and returns the file's size.
pub(super) fn write(
    directory: &Directory,
    engine: &Engine,
    revision: Revision,
    now: u64,
    cancelled: &AtomicBool,
) -> Result<u64, OpenError> {
    let lifetimes: HashMap<_, _> =
        engine.expiry.pending().into_iter().map(|(key, revision, left)| ((key, revision), left)).collect();
    let lifetime = |entry: &Entry| {
        let left = lifetimes.get(&(entry.key.clone(), entry.revision))?;
        Some(Lifetime::starting(now, *left))
    };
    let write = |file: &mut File| {
        let salt = Salt::random();
        file.write_all(&frame::file_header(FileKind::Snapshot, salt, revision))?;
        let (mut buffer, mut count, mut after) = (Vec::new(), 0, None);
        loop {
            if cancelled.load(Ordering::Relaxed) {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            let entries = engine.read().step(revision, after.as_deref(), STEP);
            frame::begin_frame(&mut buffer);
            entries.iter().for_each(|entry| record::write_entry(&mut buffer, entry, lifetime(entry)));
            count += entries.len() as u64;
            let Some(last) = entries.last() else { break };
            after = Some(last.key.clone());
            write_frame(file, &mut buffer, salt)?;
        }
        record::write_end(&mut buffer, count);
        write_frame(file, &mut buffer, salt)?;
        file.metadata().map(|m| m.len())
    };
    directory.create(&directory.snapshot(revision), write).map(|(_, size)| size)
}

fn write_frame(file: &mut File, buffer: &mut [u8], salt: Salt) -> std::io::Result<()> {
    if !frame::finish_frame(buffer, salt) {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    file.write_all(buffer)
}

/// Reads a snapshot into an empty state and returns the lifetimes in it.
pub(super) fn read(
    directory: &Directory,
    revision: Revision,
    now: u64,
    state: &mut State,
) -> Result<Vec<Remaining>, OpenError> {
    let mut frames = Frames::open(&directory.snapshot(revision), FileKind::Snapshot, revision)?;
    let (mut lifetimes, mut count) = (Vec::new(), 0);
    let mut ended = None;
    while let Step::Payload(payload) = frames.next_strict()? {
        for record in record::read_all(&payload).ok_or_else(|| frames.corrupt("not a list of records"))? {
            match record {
                Record::Entry { entry, lifetime } => {
                    count += 1;
                    lifetimes.extend(lifetime.map(|l| (entry.key.clone(), entry.revision, l.remaining(now))));
                    state.load(entry);
                }
                Record::End { count } => ended = Some(count),
                _ => return Err(frames.corrupt("a log record in a snapshot")),
            }
        }
    }
    if ended != Some(count) {
        return Err(frames.corrupt(format!("{count} entries, but it says {ended:?}")));
    }
    state.finish_load(revision);
    Ok(lifetimes)
}
