//! Objects that are read as another kind than they are stored as (events of both groups). The rule is identity; only a
//! view is decoded and encoded again.

use super::Served;
use crate::api::{ApiResult, Object, ObjectList, WatchEvent};
use crate::server::{Kind, encode};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// An object as a kind shows it.
pub(crate) fn show(served: &Served, object: Arc<Object>) -> ApiResult<Arc<Object>> {
    if served.is_view() { translate(served.kind.as_ref(), &object) } else { Ok(object) }
}

/// A list as a kind shows it.
pub(crate) fn show_list(served: &Served, mut list: ObjectList) -> ApiResult<ObjectList> {
    if served.is_view() {
        list.items = list.items.into_iter().map(|o| translate(served.kind.as_ref(), &o)).collect::<ApiResult<_>>()?;
    }
    Ok(list)
}

/// An event of a watch as a kind shows it.
pub(crate) fn show_event(kind: &dyn Kind, event: WatchEvent) -> ApiResult<WatchEvent> {
    Ok(match event {
        WatchEvent::Object(what, object) => WatchEvent::Object(what, translate(kind, &object)?),
        mark @ WatchEvent::Bookmark { .. } => mark,
    })
}

fn translate(kind: &dyn Kind, object: &Object) -> ApiResult<Arc<Object>> {
    let mut value = object.value()?;
    kind.from_storage(&mut value);
    let stored = encode::stored_form(&value)?;
    let shown = encode::object(&kind.names().gvr, &stored, object.revision, object.fields.clone())?;
    Ok(Arc::new(shown))
}

/// A stored object as generic JSON in the kind's own form, without `resourceVersion`.
pub(crate) fn value(served: &Served, object: &Object) -> ApiResult<Value> {
    let mut value = object.value()?;
    if served.is_view() {
        served.kind.from_storage(&mut value);
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    Ok(value)
}

/// The value in its stored form.
pub(crate) fn to_stored<'a>(served: &Served, value: &'a Value) -> Cow<'a, Value> {
    let mut stored = Cow::Borrowed(value);
    if served.is_view() {
        served.kind.to_storage(stored.to_mut());
    }
    stored
}
