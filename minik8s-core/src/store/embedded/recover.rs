//! From a directory to a state: the newest snapshot, then every commit logged after it.

use super::directory::{Directory, Found};
use super::error::OpenError;
use super::frame::{FileKind, Frames, Step};
use super::log::{self, Log};
use super::record::{self, LoggedOp, Record};
use super::snapshot::{self, Remaining};
use crate::api::Revision;
use crate::store::engine::{Limits, State, plan};
use crate::store::{Commit, Op};
use std::fs::{File, OpenOptions};
use std::path::Path;

/// A store as it was found.
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) lifetimes: Vec<Remaining>,
    pub(super) log: Log,
    /// What that log begins after.
    pub(super) log_start: Revision,
    /// Size of the snapshot that it began with.
    pub(super) snapshot_size: u64,
}

/// Reads the directory, or fills it where it is empty.
pub(super) fn recover(directory: &Directory, limits: &Limits, now: u64) -> Result<Recovered, OpenError> {
    let found = directory.clean_up()?;
    let mut replay = Replay { state: State::new(), lifetimes: Vec::new(), limits, now };
    let mut snapshot_size = 0;
    if let Some(newest) = found.snapshots.last() {
        replay.lifetimes = snapshot::read(directory, *newest, now, &mut replay.state)?;
        let path = directory.snapshot(*newest);
        snapshot_size = path.metadata().map_err(OpenError::io("read", &path))?.len();
    }
    let needed = needed_logs(directory, &found, replay.state.revision())?;
    let log_start = needed.last().copied().unwrap_or_else(|| replay.state.revision());
    let log = match needed.split_last() {
        None => create_log(directory, log_start)?,
        Some((last, earlier)) => {
            for start in earlier {
                replay.log(directory, *start, Frames::next_strict)?;
            }
            let frames = replay.log(directory, *last, Frames::next)?;
            resume(&directory.log(*last), &frames)?
        }
    };
    let Replay { state, lifetimes, .. } = replay;
    remove_obsolete(directory, &found, needed.first().copied())?;
    Ok(Recovered { state, lifetimes, log, log_start, snapshot_size })
}

/// The logs that hold what comes after `revision`. A store without any is new; one that misses some is damaged.
fn needed_logs<'a>(directory: &Directory, found: &'a Found, revision: Revision) -> Result<&'a [Revision], OpenError> {
    let first = found.logs.partition_point(|start| *start <= revision).checked_sub(1);
    match first.and_then(|first| found.logs.get(first..)) {
        Some(needed) => Ok(needed),
        None if found.logs.is_empty() && found.snapshots.is_empty() => Ok(&[]),
        None => Err(OpenError::corrupt(&directory.log(revision), 0, "the log after the newest snapshot is missing")),
    }
}

/// Makes a log for what comes after `revision`.
pub(super) fn create_log(directory: &Directory, revision: Revision) -> Result<Log, OpenError> {
    let (file, salt) = directory.create(&directory.log(revision), |file| log::write_header(file, revision))?;
    Ok(Log::new(file, salt))
}

fn resume(path: &Path, frames: &Frames) -> Result<Log, OpenError> {
    let file: File = OpenOptions::new().write(true).open(path).map_err(OpenError::io("open", path))?;
    Log::resume(file, frames.salt(), frames.offset()).map_err(OpenError::io("truncate", path))
}

/// Removes what snapshots made superfluous, also where a crash came between.
fn remove_obsolete(directory: &Directory, found: &Found, first_log: Option<Revision>) -> Result<(), OpenError> {
    let old_snapshots = found.snapshots.split_last().map_or(&[][..], |(_, old)| old);
    old_snapshots.iter().try_for_each(|revision| directory.remove(&directory.snapshot(*revision)))?;
    let old_logs = found.logs.iter().filter(|start| first_log.is_some_and(|first| **start < first));
    old_logs.into_iter().try_for_each(|start| directory.remove(&directory.log(*start)))
}

struct Replay<'a> {
    state: State,
    lifetimes: Vec<Remaining>,
    limits: &'a Limits,
    now: u64,
}

impl Replay<'_> {
    /// Applies a log file to its end, as `next` sees it, and returns where that is.
    fn log(
        &mut self,
        directory: &Directory,
        start: Revision,
        next: fn(&mut Frames) -> Result<Step, OpenError>,
    ) -> Result<Frames, OpenError> {
        let mut frames = Frames::open(&directory.log(start), FileKind::Log, start)?;
        while let Step::Payload(payload) = next(&mut frames)? {
            let records = record::read_all(&payload).ok_or_else(|| frames.corrupt("not a list of records"))?;
            for record in records {
                self.record(record).map_err(|why| frames.corrupt(why))?;
            }
        }
        Ok(frames)
    }

    fn record(&mut self, record: Record) -> Result<(), String> {
        match record {
            // Already part of the snapshot.
            Record::Commit { revision, .. } if revision <= self.state.revision() => Ok(()),
            Record::Commit { revision, ops } => self.commit(revision, ops),
            Record::Compact { floor } => self.state.compact(floor).map_err(|error| error.to_string()),
            Record::Entry { .. } | Record::End { .. } => Err("a snapshot record in a log".to_owned()),
        }
    }

    fn commit(&mut self, revision: Revision, ops: Vec<LoggedOp>) -> Result<(), String> {
        let ops = ops.into_iter().map(|op| self.op(op)).collect();
        let planned = plan(&self.state, &Commit { when: Vec::new(), ops }).map_err(|error| error.to_string())?;
        let plan = planned
            .filter(|plan| plan.revision == revision)
            .ok_or_else(|| format!("commit {revision} does not follow on revision {}", self.state.revision()))?;
        let lifetimes = plan.lifetimes.into_iter().map(|(key, left)| (key, revision, left));
        self.lifetimes.extend(lifetimes);
        self.state.apply(revision, plan.changes);
        self.state.trim(self.limits);
        Ok(())
    }

    fn op(&self, op: LoggedOp) -> Op {
        match op {
            LoggedOp::Put { key, value, lifetime } => {
                Op::Put { key, value, ttl: lifetime.map(|lifetime| lifetime.remaining(self.now)) }
            }
            LoggedOp::Delete { key } => Op::Delete { key },
        }
    }
}
