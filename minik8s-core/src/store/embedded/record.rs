//! What frames hold: commits and compactions in a log, entries in a snapshot.
//!
//! ```text
//! commit  = 1 · revision 8 · count 4 · ops         put    = 1 · key · value · lifetime
//! compact = 2 · floor 8                            delete = 2 · key
//! entry   = 3 · created 8 · revision 8 · put       lifetime = 0 | 1 · length in ms 8 · end in Unix ms 8
//! end     = 4 · count 8                            key, value = length 4 · bytes
//! ```

use crate::api::Revision;
use crate::store::engine::{Change, Plan};
use crate::store::{Entry, Key};
use bytes::Bytes;
use std::time::Duration;

const COMMIT: u8 = 1;
const COMPACT: u8 = 2;
const ENTRY: u8 = 3;
const END: u8 = 4;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// A lifetime that survives restarts: its end by the wall clock, and its length, because wall clocks jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    length: u64,
    end: u64,
}

impl Lifetime {
    pub(super) fn starting(now: u64, length: Duration) -> Self {
        let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Self { length, end: now.saturating_add(length) }
    }

    /// What is left of it; never more than it was, whatever the clock did.
    pub(super) fn remaining(self, now: u64) -> Duration {
        Duration::from_millis(self.end.saturating_sub(now).min(self.length))
    }
}

/// One change as it was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LoggedOp {
    Put { key: Key, value: Bytes, lifetime: Option<Lifetime> },
    Delete { key: Key },
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Commit { revision: Revision, ops: Vec<LoggedOp> },
    Compact { floor: Revision },
    Entry { entry: Entry, lifetime: Option<Lifetime> },
    End { count: u64 },
}

pub(super) fn write_commit(out: &mut Vec<u8>, plan: &Plan, now: u64) {
    out.push(COMMIT);
    out.extend(plan.revision.to_le_bytes());
    out.extend(length(plan.changes.len()));
    let mut lifetimes = plan.lifetimes.iter().peekable();
    for change in &plan.changes {
        match change {
            Change::Put(entry) => {
                let lifetime = lifetimes.next_if(|(key, _)| *key == entry.key);
                let lifetime = lifetime.map(|(_, length)| Lifetime::starting(now, *length));
                write_put(out, &entry.key, &entry.value, lifetime);
            }
            Change::Delete(entry) => {
                out.push(DELETE);
                write_bytes(out, entry.key.as_bytes());
            }
        }
    }
}

pub(super) fn write_compact(out: &mut Vec<u8>, floor: Revision) {
    out.push(COMPACT);
    out.extend(floor.to_le_bytes());
}

pub(super) fn write_entry(out: &mut Vec<u8>, entry: &Entry, lifetime: Option<Lifetime>) {
    out.push(ENTRY);
    out.extend(entry.created.to_le_bytes());
    out.extend(entry.revision.to_le_bytes());
    write_put(out, &entry.key, &entry.value, lifetime);
}

pub(super) fn write_end(out: &mut Vec<u8>, count: u64) {
    out.push(END);
    out.extend(count.to_le_bytes());
}

fn write_put(out: &mut Vec<u8>, key: &Key, value: &Bytes, lifetime: Option<Lifetime>) {
    out.push(PUT);
    write_bytes(out, key.as_bytes());
    write_bytes(out, value);
    out.push(u8::from(lifetime.is_some()));
    if let Some(Lifetime { length, end }) = lifetime {
        out.extend(length.to_le_bytes());
        out.extend(end.to_le_bytes());
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(length(bytes.len()));
    out.extend_from_slice(bytes);
}

/// Lengths fit: the engine bounds commits far below 4 GiB.
fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

/// All records of a payload, and `None` where it is not made of records.
pub(super) fn read_all(payload: &[u8]) -> Option<Vec<Record>> {
    let mut input = Reader(payload);
    let mut records = Vec::new();
    while !input.0.is_empty() {
        records.push(input.record()?);
    }
    Some(records)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn record(&mut self) -> Option<Record> {
        match self.byte()? {
            COMMIT => {
                let (revision, count) = (self.number()?, self.length()?);
                let ops = (0..count).map(|_| self.op()).collect::<Option<_>>()?;
                Some(Record::Commit { revision, ops })
            }
            COMPACT => Some(Record::Compact { floor: self.number()? }),
            ENTRY => {
                let (created, revision) = (self.number()?, self.number()?);
                let LoggedOp::Put { key, value, lifetime } = self.op()? else { return None };
                Some(Record::Entry { entry: Entry { key, value, created, revision }, lifetime })
            }
            END => Some(Record::End { count: self.number()? }),
            _ => None,
        }
    }

    fn op(&mut self) -> Option<LoggedOp> {
        match self.byte()? {
            PUT => {
                // Copied, so that a value does not keep the whole file's buffer alive.
                let (key, value) = (self.key()?, Bytes::copy_from_slice(self.bytes()?));
                let lifetime = match self.byte()? {
                    0 => None,
                    1 => Some(Lifetime { length: self.number()?, end: self.number()? }),
                    _ => return None,
                };
                Some(LoggedOp::Put { key, value, lifetime })
            }
            DELETE => Some(LoggedOp::Delete { key: self.key()? }),
            _ => None,
        }
    }

    fn key(&mut self) -> Option<Key> {
        std::str::from_utf8(self.bytes()?).ok().map(Key::from)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.take()?)).ok()
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
}
