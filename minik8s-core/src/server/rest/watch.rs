//! Watches over HTTP: one line of JSON per event, sent at once. Lines are made once and shared by all watchers.

use super::body::{Body, BoxError};
use super::encode::{Encoder, list_meta};
use super::media::Shape;
use super::status::{Status, respond};
use crate::api::{ApiError, ApiResult, Object, Revision, WatchEvent, WatchEventType};
use crate::client::WatchStream;
use crate::server::printing::write_metadata;
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use tokio_util::sync::CancellationToken;

/// How many lines are remembered.
const SLOTS: usize = 512;

type Slot = Mutex<Option<(Weak<Object>, WatchEventType, Bytes)>>;

/// The lines of the latest events. A thousand watchers of one resource send the same bytes.
pub(crate) struct LineCache(Box<[Slot]>);

impl Default for LineCache {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| Mutex::new(None)).collect())
    }
}

impl LineCache {
    /// The line of an event. A weak reference keeps the address from being used again, so an address names an object.
    fn line(&self, event: WatchEventType, object: &Arc<Object>) -> Bytes {
        let address = Arc::as_ptr(object);
        let Some(slot) = self.0.get((address as usize >> 4) % SLOTS) else {
            return line(event, &object.json);
        };
        let mut slot = slot.lock();
        if let Some((known, of, line)) = slot.as_ref()
            && known.as_ptr() == address
            && *of == event
        {
            return line.clone();
        }
        let line = line(event, &object.json);
        *slot = Some((Arc::downgrade(object), event, line.clone()));
        line
    }
}

fn name(event: WatchEventType) -> &'static str {
    match event {
        WatchEventType::Added => "ADDED",
        WatchEventType::Modified => "MODIFIED",
        WatchEventType::Deleted => "DELETED",
        WatchEventType::Bookmark => "BOOKMARK",
    }
}

fn line(event: WatchEventType, object: &[u8]) -> Bytes {
    named_line(name(event), object)
}

fn named_line(name: &str, object: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 40);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(name.as_bytes());
    line.put_slice(b"\",\"object\":");
    line.put_slice(object);
    line.put_slice(b"}\n");
    line.freeze()
}

/// Writes the events of one watch.
pub(crate) struct EventWriter {
    encoder: Encoder,
    lines: Arc<LineCache>,
    clock: crate::clock::SharedClock,
    columns_sent: bool,
}

impl EventWriter {
    /// A writer of events in the encoder's shape.
    pub(crate) fn new(encoder: Encoder, lines: Arc<LineCache>, clock: crate::clock::SharedClock) -> Self {
        Self { encoder, lines, clock, columns_sent: false }
    }

    fn write(&mut self, event: ApiResult<WatchEvent>) -> Bytes {
        let written = event.and_then(|event| match event {
            WatchEvent::Object(event, object) => self.object(event, &object),
            WatchEvent::Bookmark { revision, initial_done } => self.bookmark(revision, initial_done),
        });
        written.unwrap_or_else(|e| error_line(&e))
    }

    fn object(&mut self, event: WatchEventType, object: &Arc<Object>) -> ApiResult<Bytes> {
        match self.encoder.shape {
            Shape::Plain | Shape::Yaml => Ok(self.lines.line(event, object)),
            Shape::Metadata => {
                let mut out = Vec::new();
                write_metadata(&mut out, "meta.k8s.io/v1", &object.value()?);
                Ok(line(event, &out))
            }
            Shape::Table(version) => {
                self.encoder.now = self.clock.now();
                let meta = list_meta(object.revision, "", None);
                let first = !std::mem::replace(&mut self.columns_sent, true);
                let printer = self.encoder.printer(version);
                Ok(line(event, &printer.table(&meta, std::iter::once(object.as_ref()), first)?))
            }
        }
    }

    fn bookmark(&mut self, revision: Revision, initial_done: bool) -> ApiResult<Bytes> {
        let mut metadata = format!(r#"{{"resourceVersion":"{revision}","creationTimestamp":null"#);
        if initial_done {
            metadata.push_str(r#","annotations":{"k8s.io/initial-events-end":"true"}"#);
        }
        metadata.push('}');
        if let Shape::Table(version) = self.encoder.shape {
            let first = !std::mem::replace(&mut self.columns_sent, true);
            let table = self.encoder.printer(version).table(metadata.as_bytes(), std::iter::empty(), first)?;
            return Ok(line(WatchEventType::Bookmark, &table));
        }
        let names = self.encoder.kind.names();
        let (kind, version) = match self.encoder.shape {
            Shape::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            _ => (&*names.kind, names.gvr.api_version()),
        };
        let object = format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata}}}"#);
        Ok(line(WatchEventType::Bookmark, object.as_bytes()))
    }
}

fn error_line(error: &ApiError) -> Bytes {
    named_line("ERROR", &Status::failure(error).to_json())
}

/// The answer to a watch: ends with the stream, or with the server.
pub(crate) fn respond_with(stream: WatchStream, mut writer: EventWriter, ending: CancellationToken) -> Response<Body> {
    let ended = stream.take_until(ending.cancelled_owned());
    let lines = ended.map(move |event| Ok::<_, BoxError>(Frame::data(writer.write(event))));
    respond(200, "application/json", StreamBody::new(lines).boxed_unsync())
}

/// The answer to a watch that cannot start where it was asked to: clients expect the refusal as an event.
pub(crate) fn respond_expired(error: &ApiError) -> Response<Body> {
    respond(200, "application/json", super::body::full(error_line(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Gvr;

    fn object(name: &str) -> Arc<Object> {
        let json = format!(r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}"}}}}"#);
        Arc::new(Object::from_json(Gvr::new("", "v1", "configmaps"), json.into()).unwrap())
    }

    #[test]
    fn watchers_share_the_bytes_of_a_line() {
        let cache = LineCache::default();
        let a = object("a");
        let first = cache.line(WatchEventType::Added, &a);
        let text = r#"{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}}"#;
        assert_eq!(first, format!("{text}\n"));
        assert_eq!(cache.line(WatchEventType::Added, &a).as_ptr(), first.as_ptr());
        assert!(cache.line(WatchEventType::Modified, &a).starts_with(b"{\"type\":\"MODIFIED\""));
    }

    #[test]
    fn a_new_object_never_gets_the_line_of_an_old_one() {
        let cache = LineCache::default();
        for round in 0..1000 {
            let object = object(&round.to_string());
            let line = cache.line(WatchEventType::Added, &object);
            assert!(String::from_utf8_lossy(&line).contains(&format!("\"name\":\"{round}\"")));
        }
    }
}
