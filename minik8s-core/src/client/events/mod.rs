//! Events: what loops tell people about objects. Never in the way of the loop that tells.

mod correlate;
#[cfg(test)]
mod tests;

use super::{Api, Client, PatchType};
use crate::clock::{SharedClock, SystemClock};
use correlate::{Correlator, Verdict};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tracing::debug;

/// How many events may wait to be written; more are dropped.
const QUEUE: usize = 1024;

/// Whether an event is good or bad news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Someone may want to look.
    Warning,
}

impl EventType {
    /// Its spelling in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// One event to write.
#[derive(Clone, Debug)]
struct Note {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Writes events in the background. Cheap to clone; what is queued is written until the last clone is dropped.
///
/// Telling never blocks and never fails: events beyond what can be written are dropped. Repeats of an event become a
/// higher `count` of the first one, and each object may have a burst of 25, then one in twelve seconds.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Note>,
    clock: SharedClock,
}

impl EventRecorder {
    /// A recorder for a component, on a node where it is not empty. Must be called within a Tokio runtime.
    pub fn new(client: Client, component: &str, node: &str) -> Self {
        Self::with_clock(client, component, node, Arc::new(SystemClock))
    }

    /// As [`new`](Self::new), with a clock.
    pub fn with_clock(client: Client, component: &str, node: &str, clock: SharedClock) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE);
        let (component, node) = (component.to_owned(), node.to_owned());
        let writer = Writer { client, component, node, last: AtomicU64::default() };
        tokio::spawn(writer.run(notes));
        Self { queue, clock }
    }

    /// Tells that something happened to an object. `reason` is one CamelCase word, `note` a sentence for people.
    pub fn event(&self, about: &ObjectReference, kind: EventType, reason: impl Into<String>, note: impl Into<String>) {
        let note =
            Note { about: about.clone(), kind, reason: reason.into(), message: note.into(), at: self.clock.now() };
        if self.queue.try_send(note).is_err() {
            debug!("event dropped, too many wait to be written");
        }
    }
}

struct Writer {
    client: Client,
    component: String,
    node: String,
    /// The number in the name of the last event.
    last: AtomicU64,
}

impl Writer {
    async fn run(self, mut notes: mpsc::Receiver<Note>) {
        let mut known = Correlator::default();
        while let Some(note) = notes.recv().await {
            let written = match known.judge(&note) {
                Verdict::Drop => continue,
                Verdict::First => self.create(&note, &mut known).await,
                Verdict::Repeat { name, count } => match self.repeat(&note, &name, count).await {
                    Err(e) if e.is_not_found() => self.create(&note, &mut known).await,
                    other => other,
                },
            };
            if let Err(error) = written {
                debug!(%error, reason = note.reason, "event could not be written");
                known.forget(&note);
            }
        }
    }

    fn api(&self, note: &Note) -> Api<Event> {
        self.client.api(namespace(&note.about))
    }

    async fn create(&self, note: &Note, known: &mut Correlator) -> crate::api::ApiResult<()> {
        let event = self.first(note);
        self.api(note).create(&event).await?;
        known.created(note, event.metadata.name.unwrap_or_default());
        Ok(())
    }

    async fn repeat(&self, note: &Note, name: &str, count: i32) -> crate::api::ApiResult<()> {
        let patch = json!({"count": count, "lastTimestamp": Time(note.at), "message": note.message});
        self.api(note).patch(name, PatchType::Merge, &patch).await.map(|_| ())
    }

    /// The instant as a number, or the next one where the instant's is taken: clocks may be coarse.
    fn number(&self, at: Timestamp) -> u64 {
        let number = (at.as_nanosecond() as u64).max(self.last.load(Ordering::Relaxed) + 1);
        self.last.store(number, Ordering::Relaxed);
        number
    }

    /// Both generations of fields are filled: `kubectl describe` shows `source`, newer clients `reportingComponent`.
    fn first(&self, note: &Note) -> Event {
        let about = note.about.name.as_deref().unwrap_or("unknown");
        let host = (!self.node.is_empty()).then(|| self.node.clone());
        let name = format!("{about}.{:016x}", self.number(note.at));
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace(&note.about).to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: note.about.clone(),
            type_: Some(note.kind.as_str().to_owned()),
            reason: Some(note.reason.clone()),
            message: Some(note.message.clone()),
            source: Some(EventSource { component: Some(self.component.clone()), host: host.clone() }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(host.unwrap_or_else(|| self.component.clone())),
            count: Some(1),
            first_timestamp: Some(Time(note.at)),
            last_timestamp: Some(Time(note.at)),
            ..Event::default()
        }
    }
}

/// Events of cluster-scoped objects live in `default`.
fn namespace(about: &ObjectReference) -> &str {
    about.namespace.as_deref().filter(|ns| !ns.is_empty()).unwrap_or("default")
}
