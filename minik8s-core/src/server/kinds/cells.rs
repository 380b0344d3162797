//! Table columns and cells that several kinds share.

use super::util::{items, text};
use crate::api::Selector;
use crate::api::human;
use crate::server::Column;
use jiff::Timestamp;
use serde_json::Value;

/// What stands where there is nothing.
pub const NONE: &str = "<none>";

/// The object's name.
pub const NAME: Column = Column { name: "Name", kind: "string", format: "name", priority: 0, cell: name };

/// Time since creation.
pub const AGE: Column = Column { name: "Age", kind: "string", format: "", priority: 0, cell: age };

/// What fills a cell: the object and the present time.
pub type Cell = fn(&Value, Timestamp) -> Value;

/// A column of text that is always shown.
pub const fn column(name: &'static str, cell: Cell) -> Column {
    Column { name, kind: "string", format: "", priority: 0, cell }
}

/// A column of text that only `-o wide` shows.
pub const fn wide(name: &'static str, cell: Cell) -> Column {
    Column { name, kind: "string", format: "", priority: 1, cell }
}

/// A column of whole numbers.
pub const fn integer(name: &'static str, cell: Cell) -> Column {
    Column { name, kind: "integer", format: "", priority: 0, cell }
}

fn name(object: &Value, _: Timestamp) -> Value {
    text(object, "/metadata/name").into()
}

fn age(object: &Value, now: Timestamp) -> Value {
    since(object, "/metadata/creationTimestamp", now).into()
}

/// Time since the moment at a pointer; `<unknown>` where there is none.
pub fn since(object: &Value, pointer: &str, now: Timestamp) -> String {
    human::age_since(object.pointer(pointer).and_then(Value::as_str), now)
}

/// The text at a pointer, or `<none>`.
pub fn or_none(object: &Value, pointer: &str) -> String {
    let found = text(object, pointer);
    if found.is_empty() { NONE.to_owned() } else { found.to_owned() }
}

/// A label selector object, as text.
pub fn selector(value: Option<&Value>) -> String {
    let parsed = value.filter(|v| !v.is_null()).map(Selector::from_value);
    match parsed {
        None => NONE.to_owned(),
        Some(Ok(selector)) if selector.is_everything() => NONE.to_owned(),
        Some(Ok(selector)) => selector.to_string(),
        Some(Err(_)) => "<error>".to_owned(),
    }
}

/// One field of every item of a list, joined by commas.
pub fn joined(object: &Value, list: &str, field: &str) -> String {
    items(object, list).filter_map(|i| i.get(field).and_then(Value::as_str)).collect::<Vec<_>>().join(",")
}

/// Names of a pod template's containers.
pub fn template_containers(object: &Value, _: Timestamp) -> Value {
    joined(object, "/spec/template/spec/containers", "name").into()
}

/// Images of a pod template's containers.
pub fn template_images(object: &Value, _: Timestamp) -> Value {
    joined(object, "/spec/template/spec/containers", "image").into()
}

/// The label selector in `spec.selector`.
pub fn spec_selector(object: &Value, _: Timestamp) -> Value {
    selector(object.pointer("/spec/selector")).into()
}

/// The status of a condition.
pub fn condition<'a>(object: &'a Value, list: &str, kind: &str) -> &'a str {
    items(object, list).find(|c| text(c, "/type") == kind).map(|c| text(c, "/status")).unwrap_or_default()
}
