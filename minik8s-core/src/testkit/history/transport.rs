//! A transport that notes what passes through it.

use super::{CallId, Content, Op, Outcome, Recorder, Seen, When};
use crate::api::{ApiError, ApiResult, Gvr, Object, ObjectList, Reason, Revision, Target, WatchEvent, WatchEventType};
use crate::client::{
    DeleteOptions, Deleted, ListOptions, PatchType, Payload, SharedTransport, Transport, VersionMatch, WatchOptions,
    WatchStream, WriteOptions, Written,
};
use crate::server::keys;
use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A list as it was answered.
#[derive(Clone, Debug)]
pub struct ListSeen {
    /// Who asked.
    pub client: Arc<str>,
    /// Where in the store the listed objects stand.
    pub prefix: String,
    /// Whether selectors chose among them.
    pub selective: bool,
    /// Whether it goes on where another page ended, and whether others follow.
    pub page: (bool, bool),
    /// Whether it had to show all that was done before it was asked.
    pub fresh: bool,
    /// The revision it says it was read at.
    pub revision: Revision,
    /// Key and version of each object, in order.
    pub items: Vec<(String, Revision)>,
    /// The store's revisions before and after, where they are known.
    pub during: Option<(Revision, Revision)>,
}

/// A watch and what it told.
#[derive(Clone, Debug)]
pub struct WatchSeen {
    /// Who watched.
    pub client: Arc<str>,
    /// Where in the store the watched objects stand.
    pub prefix: String,
    /// Whether selectors chose among them.
    pub selective: bool,
    /// The revision it began after; `None` where it began with the present state.
    pub after: Option<Revision>,
    /// The changes, in order.
    pub events: Vec<(Revision, String, WatchEventType)>,
    /// Nothing is missing up to here.
    pub reached: Revision,
}

struct Recording {
    recorder: Recorder,
    client: Arc<str>,
    inner: SharedTransport,
}

pub(super) fn wrap(recorder: Recorder, client: &str, inner: SharedTransport) -> SharedTransport {
    Arc::new(Recording { recorder, client: client.into(), inner })
}

impl Recording {
    /// Notes a call on the object `name` of the target's collection.
    async fn call<T>(
        &self,
        target: &Target,
        name: Option<&str>,
        op: Op,
        request: impl Future<Output = ApiResult<T>>,
        outcome: impl FnOnce(&T) -> Outcome,
        named: impl FnOnce(&T) -> Option<String>,
    ) -> ApiResult<T> {
        let before = self.recorder.revision().await;
        let object = key(target, name.unwrap_or_default());
        let id = self.recorder.begin(self.client.clone(), object, op);
        let answer = request.await;
        let ended = match &answer {
            Ok(done) => {
                if let Some(name) = named(done).filter(|_| name.is_none()) {
                    self.rename(id, &key(target, &name));
                }
                outcome(done)
            }
            // Nobody knows what name it would have got.
            Err(_) if name.is_none() => Outcome::Refused,
            Err(error) => refusal(error, name.unwrap_or_default()),
        };
        self.recorder.end(id, ended);
        if let (Some(before), Some(after)) = (before, self.recorder.revision().await) {
            self.edit(id, |call| call.during = Some((before, after)));
        }
        answer
    }

    fn edit(&self, id: CallId, edit: impl FnOnce(&mut super::Call)) {
        if let Some(call) = self.recorder.notes.lock().calls.get_mut(id.0) {
            edit(call);
        }
    }

    fn rename(&self, id: CallId, object: &str) {
        self.edit(id, |call| call.object = object.into());
    }
}

fn key(target: &Target, name: &str) -> String {
    let namespace = target.namespace.as_deref().unwrap_or_default();
    keys::object(&keys::prefix(&target.gvr), namespace, name).to_string()
}

fn prefix(target: &Target) -> String {
    let prefix = keys::prefix(&target.gvr);
    target.namespace.as_ref().map_or(prefix.clone(), |namespace| format!("{prefix}{namespace}/"))
}

/// What an error says about the object of that name.
fn refusal(error: &ApiError, name: &str) -> Outcome {
    match error.reason {
        Reason::NotFound if error.details.name == name => Outcome::Missing,
        Reason::AlreadyExists => Outcome::Exists,
        Reason::Conflict => Outcome::Conflict,
        Reason::Timeout | Reason::ServerTimeout | Reason::InternalError | Reason::Unknown => Outcome::Unknown,
        _ => Outcome::Refused,
    }
}

/// Only of ConfigMaps the content is compared: nobody but clients writes to them, and nothing is defaulted.
fn has_content(gvr: &Gvr) -> bool {
    gvr.resource == "configmaps"
}

fn content_of(gvr: &Gvr, object: &Value) -> Option<Content> {
    let data = object.get("data").and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    has_content(gvr).then(|| data.into_iter().flatten().filter_map(text).collect())
}

fn seen(object: &Object) -> Outcome {
    // An answer that is no stored object, such as that of a binding.
    if object.revision == 0 {
        return Outcome::Refused;
    }
    let content = if has_content(&object.gvr) { object.value().ok() } else { None };
    Outcome::Is(Seen {
        revision: object.revision,
        uid: Some(object.meta.uid.clone()),
        content: content.and_then(|value| content_of(&object.gvr, &value)),
    })
}

fn body(payload: &Payload) -> Value {
    match payload {
        Payload::Json(bytes) => serde_json::from_slice(bytes).unwrap_or_default(),
        _ => Value::Null,
    }
}

fn when(body: &Value) -> When {
    let text = |field: &str| body.pointer(field).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    let revision = text("/metadata/resourceVersion").and_then(|version| version.parse().ok());
    When { revision, uid: text("/metadata/uid") }
}

/// The changes that a merge patch makes to the content.
fn merge_of(target: &Target, kind: PatchType, body: &Value) -> Option<BTreeMap<String, Option<String>>> {
    let data = body.get("data").and_then(Value::as_object);
    let change = |(key, value): (&String, &Value)| (key.clone(), value.as_str().map(str::to_owned));
    let known = has_content(&target.gvr) && matches!(kind, PatchType::Merge | PatchType::StrategicMerge);
    known.then(|| data.into_iter().flatten().map(change).collect())
}

/// Events expire on their own and stand elsewhere than their resource says.
fn is_noted(target: &Target, dry_run: bool) -> bool {
    let object = matches!(target.subresource.as_deref(), None | Some("status" | "scale" | "binding"));
    object && !dry_run && target.gvr.resource != "events"
}

#[async_trait]
impl Transport for Recording {
    async fn get(&self, target: &Target) -> ApiResult<Arc<Object>> {
        let request = self.inner.get(target);
        if !is_noted(target, false) {
            return request.await;
        }
        self.call(target, target.name.as_deref(), Op::Get, request, |object| seen(object), |_| None).await
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> ApiResult<ObjectList> {
        let before = self.recorder.revision().await;
        let list = self.inner.list(target, options).await?;
        let during = before.zip(self.recorder.revision().await);
        let noted = ListSeen {
            client: self.client.clone(),
            prefix: prefix(target),
            selective: !options.label_selector.is_empty() || !options.field_selector.is_empty(),
            page: (!options.continue_token.is_empty(), !list.continue_token.is_empty()),
            fresh: options.resource_version.is_none()
                && options.continue_token.is_empty()
                && options.version_match == VersionMatch::Unset,
            revision: list.revision,
            items: list.items.iter().map(|object| (key_of(target, object), object.revision)).collect(),
            during,
        };
        if is_noted(target, false) {
            self.recorder.notes.lock().lists.push(noted);
        }
        Ok(list)
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> ApiResult<WatchStream> {
        let events = self.inner.watch(target, options).await?;
        if !is_noted(target, false) {
            return Ok(events);
        }
        let after = options.resource_version.filter(|revision| *revision > 0);
        let noted = Arc::new(Mutex::new(WatchSeen {
            client: self.client.clone(),
            prefix: prefix(target),
            selective: !options.label_selector.is_empty() || !options.field_selector.is_empty(),
            after: after.filter(|_| !options.send_initial_events),
            events: Vec::new(),
            reached: after.unwrap_or_default(),
        }));
        self.recorder.notes.lock().watches.push(noted.clone());
        let target = target.clone();
        Ok(events.inspect(move |event| note(&target, &mut noted.lock(), event)).boxed())
    }

    async fn create(&self, target: &Target, payload: Payload, options: &WriteOptions) -> ApiResult<Written> {
        let body = body(&payload);
        let request = self.inner.create(target, payload, options);
        if !is_noted(target, options.dry_run) {
            return request.await;
        }
        let name = body.pointer("/metadata/name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let op = match target.subresource {
            None => Op::Create(content_of(&target.gvr, &body)),
            Some(_) => Op::Patch(None, When::default()),
        };
        let named = |written: &Written| Some(written.object.meta.name.clone());
        let name = target.name.as_deref().or(name);
        self.call(target, name, op, request, |written| seen(&written.object), named).await
    }

    async fn update(&self, target: &Target, payload: Payload, options: &WriteOptions) -> ApiResult<Written> {
        let body = body(&payload);
        let request = self.inner.update(target, payload, options);
        if !is_noted(target, options.dry_run) {
            return request.await;
        }
        let op = Op::Update(content_of(&target.gvr, &body), when(&body));
        self.call(target, target.name.as_deref(), op, request, |written| seen(&written.object), |_| None).await
    }

    async fn patch(
        &self,
        target: &Target,
        kind: PatchType,
        payload: Payload,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        let body = body(&payload);
        let request = self.inner.patch(target, kind, payload, options);
        if !is_noted(target, options.dry_run) {
            return request.await;
        }
        let op = Op::Patch(merge_of(target, kind, &body), when(&body));
        self.call(target, target.name.as_deref(), op, request, |written| seen(&written.object), |_| None).await
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> ApiResult<Deleted> {
        let request = self.inner.delete(target, options);
        if !is_noted(target, options.dry_run) {
            return request.await;
        }
        let wanted = &options.preconditions;
        let revision = wanted.resource_version.as_ref().and_then(|version| version.parse().ok());
        let op = Op::Delete(When { revision, uid: wanted.uid.clone() });
        let outcome = |deleted: &Deleted| match deleted {
            Deleted::Gone(object) => Outcome::Gone(object.revision),
            Deleted::Marked(object) => seen(object),
        };
        self.call(target, target.name.as_deref(), op, request, outcome, |_| None).await
    }

    /// Many objects at once: the store's log shows what became of each.
    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> ApiResult<ObjectList> {
        self.inner.delete_collection(target, list, options).await
    }
}

fn key_of(target: &Target, object: &Object) -> String {
    keys::object(&keys::prefix(&target.gvr), &object.meta.namespace, &object.meta.name).to_string()
}

fn note(target: &Target, noted: &mut WatchSeen, event: &ApiResult<WatchEvent>) {
    let (kind, object) = match event {
        Err(_) => return,
        Ok(WatchEvent::Bookmark { revision, .. }) => return noted.reached = noted.reached.max(*revision),
        Ok(WatchEvent::Object(kind, object)) => (*kind, object),
    };
    if kind != WatchEventType::Bookmark {
        noted.events.push((object.revision, key_of(target, object), kind));
    }
    noted.reached = noted.reached.max(object.revision);
}
