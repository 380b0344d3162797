//! The one thread that writes: it takes all commits that wait, decides them one after the other, makes them durable with
//! one sync, applies them, and answers. While the disk works, the next group gathers.

use super::log::{Log, LogError};
use super::record;
use super::rotation::Rotation;
use crate::api::Revision;
use crate::clock::SharedClock;
use crate::store::engine::{Engine, Overlay, Plan, View, Wake, plan};
use crate::store::{Commit, Op, StoreError};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Most commits in one group, and the size at which a group is full.
const GROUP_COMMITS: usize = 1024;
const GROUP_BYTES: usize = 8 << 20;

type Answer = Result<Revision, StoreError>;

/// What callers ask of the writer.
pub(super) enum Wish {
    Commit(Commit),
    Compact(Revision),
}

/// A wish and where its answer goes. The caller may be gone; the wish is then carried out all the same.
pub(super) struct Request {
    pub(super) wish: Wish,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What a wish comes to, once it is known to be possible.
enum Decided {
    Change(Plan),
    Compact(Revision),
    Nothing(Answer),
}

/// State of the writing thread.
pub(super) struct Writer {
    pub(super) engine: Arc<Engine>,
    pub(super) log: Log,
    pub(super) rotation: Rotation,
    pub(super) clock: SharedClock,
    pub(super) requests: mpsc::Receiver<Request>,
}

/// Milliseconds since 1970.
pub(super) fn unix_millis(clock: &SharedClock) -> u64 {
    u64::try_from(clock.now().as_millisecond()).unwrap_or_default()
}

impl Writer {
    /// Works until every sender is gone and everything is answered.
    pub(super) fn run(mut self) {
        while let Some(first) = self.requests.blocking_recv() {
            let group = self.gather(first);
            self.carry_out(group);
            self.log = self.rotation.after_write(self.log, &self.engine, &self.clock);
        }
        self.rotation.stop();
    }

    fn gather(&mut self, first: Request) -> Vec<Request> {
        let mut bytes = size(&first);
        let mut group = vec![first];
        while group.len() < GROUP_COMMITS && bytes < GROUP_BYTES {
            let Ok(next) = self.requests.try_recv() else { break };
            bytes += size(&next);
            group.push(next);
        }
        group
    }

    fn carry_out(&mut self, group: Vec<Request>) {
        let (wishes, answers): (Vec<_>, Vec<_>) = group.into_iter().map(|r| (r.wish, r.answer)).unzip();
        let decided = self.decide(wishes);
        // Refusals are also answered only after the sync: they may rest on a commit of the same group.
        let written = self.write(&decided);
        let (results, wake) = match written {
            Ok(()) => self.apply(decided),
            Err(error) => (vec![Err(refusal(&error)); decided.len()], Wake::default()),
        };
        for (answer, result) in answers.into_iter().zip(results) {
            let _ = answer.send(result);
        }
        wake.wake();
    }

    fn decide(&self, wishes: Vec<Wish>) -> Vec<Decided> {
        let state = self.engine.read();
        let mut ahead = Overlay::new(&*state);
        let mut decide = |wish| match wish {
            Wish::Commit(commit) => match plan(&ahead, &commit) {
                Ok(Some(plan)) => {
                    ahead.add(&plan);
                    Decided::Change(plan)
                }
                Ok(None) => Decided::Nothing(Ok(ahead.revision())),
                Err(error) => Decided::Nothing(Err(error)),
            },
            Wish::Compact(floor) if floor > ahead.revision() => {
                Decided::Nothing(Err(StoreError::Future { requested: floor, newest: ahead.revision() }))
            }
            Wish::Compact(floor) => Decided::Compact(floor),
        };
        wishes.into_iter().map(&mut decide).collect()
    }

    fn write(&mut self, decided: &[Decided]) -> Result<(), LogError> {
        if decided.iter().all(|d| matches!(d, Decided::Nothing(_))) {
            return Ok(());
        }
        let now = unix_millis(&self.clock);
        self.log.append(|out| {
            for decision in decided {
                match decision {
                    Decided::Change(plan) => record::write_commit(out, plan, now),
                    Decided::Compact(floor) => record::write_compact(out, *floor),
                    Decided::Nothing(_) => {}
                }
            }
        })
    }

    fn apply(&self, decided: Vec<Decided>) -> (Vec<Answer>, Wake) {
        let mut wake = Wake::default();
        let mut state = self.engine.write();
        let apply = |decision| match decision {
            Decided::Change(plan) => {
                let revision = plan.revision;
                wake.merge(self.engine.apply(&mut state, plan));
                Ok(revision)
            }
            Decided::Compact(floor) => state.compact(floor).map(|()| floor),
            Decided::Nothing(answer) => answer,
        };
        let answers = decided.into_iter().map(apply).collect();
        (answers, wake)
    }
}

/// What a caller learns of a log that failed.
fn refusal(error: &LogError) -> StoreError {
    match error {
        LogError::Broken(_) => StoreError::Unknown(error.to_string()),
        LogError::Refused(_) | LogError::Closed => {
            StoreError::Unavailable { operation: "writing the log", cause: error.to_string() }
        }
    }
}

fn size(request: &Request) -> usize {
    let Wish::Commit(commit) = &request.wish else { return 0 };
    let size = |op: &Op| match op {
        Op::Put { key, value, .. } => key.len() + value.len(),
        Op::Delete { key } => key.len(),
    };
    commit.ops.iter().map(size).sum()
}
