//! Histories: what concurrent clients asked of the API and what they were told, and whether one order of all of it
//! explains every answer.
//!
//! A [`Recorder`] notes calls as they begin and end; [`Recorder::wrap`] makes a transport of which every call, list and
//! watch is noted. Afterwards
//! - [`linearizable`] looks for an order, object by object, by the search of Wing and Gong with Lowe's memory of what was
//!   tried. It needs nothing but the answers. A call whose outcome nobody knows may take effect at any later time, or never.
//! - [`StoreLog::explains`] holds the same calls, the lists and the watches against what the store says has happened.
//!
//! ```
//! use minik8s_core::testkit::history::{Op, Outcome, Recorder, Seen, When, linearizable};
//!
//! let recorder = Recorder::default();
//! let create = recorder.begin("a", "default/x", Op::Create(None));
//! recorder.end(create, Outcome::Is(Seen::at(5)));
//! let get = recorder.begin("b", "default/x", Op::Get);
//! recorder.end(get, Outcome::Missing); // Too old an answer: it was there before this was asked.
//! assert!(linearizable(&recorder.calls()).is_err());
//! ```

mod log;
mod register;
mod search;
#[cfg(test)]
mod tests;
mod transport;

pub use log::StoreLog;
pub use transport::{ListSeen, WatchSeen};

use crate::api::Revision;
use crate::client::SharedTransport;
use crate::store::Store;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What of an object's content the history is about, such as the `data` of a ConfigMap.
pub type Content = BTreeMap<String, String>;

/// What must hold of the object for a call to happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// It is at this revision.
    pub revision: Option<Revision>,
    /// It has this identity.
    pub uid: Option<String>,
}

/// A call on one object. Contents are `None` where the history is not about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes it.
    Create(Option<Content>),
    /// Reads it.
    Get,
    /// Replaces it.
    Update(Option<Content>, When),
    /// Sets some values and, by `None`, removes others.
    Patch(Option<BTreeMap<String, Option<String>>>, When),
    /// Deletes it.
    Delete(When),
}

/// An object as an answer showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its version.
    pub revision: Revision,
    /// Its identity.
    pub uid: Option<String>,
    /// Its content.
    pub content: Option<Content>,
}

impl Seen {
    /// A version of which nothing else is known.
    pub fn at(revision: Revision) -> Self {
        Self { revision, ..Self::default() }
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done; this is the object now.
    Is(Seen),
    /// It was done, at this revision, and the object is gone.
    Gone(Revision),
    /// There is no such object.
    Missing,
    /// There is one already.
    Exists,
    /// The object is not as the call wants it.
    Conflict,
    /// Nothing was done, and nothing is said about the object.
    Refused,
    /// It may have been done, may be done later, or never.
    Unknown,
}

/// One call and its answer.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who called.
    pub client: Arc<str>,
    /// On what: anything that names one object.
    pub object: Arc<str>,
    /// What was asked.
    pub op: Op,
    /// When it began, in steps of the recorder's own clock.
    pub began: u64,
    /// When the answer came; `None` for one that never came.
    pub ended: Option<u64>,
    /// What was answered.
    pub outcome: Outcome,
    /// The store's revisions when the call began and when its answer came, where the recorder knows the store.
    pub during: Option<(Revision, Revision)>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.ended.map_or_else(|| "…".to_owned(), |end| end.to_string());
        write!(f, "[{:>5} – {end:>5}] {}: {:?} -> {:?}", self.began, self.client, self.op, self.outcome)
    }
}

/// A call that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId(usize);

/// Why no order explains what was answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {why}\n{around}")]
pub struct Violation {
    /// The object, list or watch.
    pub object: String,
    /// What cannot be.
    pub why: String,
    /// Calls at about that time, one a line.
    pub around: String,
}

impl Violation {
    fn new(object: impl Into<String>, why: impl Into<String>) -> Self {
        Self { object: object.into(), why: why.into(), around: String::new() }
    }
}

/// Notes calls. Cloning gives another hand on the same notes.
#[derive(Clone, Default)]
pub struct Recorder {
    notes: Arc<Mutex<Notes>>,
    /// Asked for its revision around every call.
    store: Option<Arc<dyn Store>>,
}

#[derive(Default)]
struct Notes {
    now: u64,
    calls: Vec<Call>,
    lists: Vec<ListSeen>,
    watches: Vec<Arc<Mutex<WatchSeen>>>,
}

impl Recorder {
    /// A recorder that notes the store's revision around every call, which makes [`StoreLog::explains`] exact.
    pub fn beside(store: Arc<dyn Store>) -> Self {
        Self { notes: Arc::default(), store: Some(store) }
    }

    /// Notes that a call begins.
    pub fn begin(&self, client: impl Into<Arc<str>>, object: impl Into<Arc<str>>, op: Op) -> CallId {
        let mut notes = self.notes.lock();
        notes.now += 1;
        let (client, object, began) = (client.into(), object.into(), notes.now);
        notes.calls.push(Call { client, object, op, began, ended: None, outcome: Outcome::Unknown, during: None });
        CallId(notes.calls.len() - 1)
    }

    /// Notes that a call ends. One that never does has an unknown outcome.
    pub fn end(&self, id: CallId, outcome: Outcome) {
        let mut notes = self.notes.lock();
        notes.now += 1;
        let now = notes.now;
        if let Some(call) = notes.calls.get_mut(id.0) {
            call.ended = Some(now);
            call.outcome = outcome;
        }
    }

    /// A transport that passes everything on and notes it under the client's name. It belongs next to the server: what
    /// loses, repeats or delays requests goes before it.
    pub fn wrap(&self, client: &str, inner: SharedTransport) -> SharedTransport {
        transport::wrap(self.clone(), client, inner)
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.notes.lock().calls.clone()
    }

    /// Every list that was answered.
    pub fn lists(&self) -> Vec<ListSeen> {
        self.notes.lock().lists.clone()
    }

    /// Every watch that began, with what it has told so far.
    pub fn watches(&self) -> Vec<WatchSeen> {
        self.notes.lock().watches.iter().map(|watch| watch.lock().clone()).collect()
    }

    async fn revision(&self) -> Option<Revision> {
        match &self.store {
            Some(store) => store.revision().await.ok(),
            None => None,
        }
    }
}

/// Looks for an order of all calls on each object, each call between its begin and its end, in which every answer is
/// the one that a single copy of the object would have given.
///
/// # Errors
/// The first object of which no such order exists.
pub fn linearizable(calls: &[Call]) -> Result<(), Violation> {
    let mut objects: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.outcome != Outcome::Refused) {
        objects.entry(&call.object).or_default().push(call);
    }
    objects.into_iter().try_for_each(|(object, calls)| search::search(object, &calls))
}
