//! Small helpers over generic JSON that every kind uses.

use crate::api::Gvr;
use crate::server::KindNames;
use serde_json::{Map, Value};

/// The names of a kind; `singular` is the kind in lower case.
pub fn names(gvr: Gvr, kind: &'static str, short: &[&'static str], all: bool, namespaced: bool) -> KindNames {
    KindNames {
        gvr,
        kind: kind.into(),
        singular: kind.to_ascii_lowercase().into(),
        short_names: short.iter().map(|s| (*s).into()).collect(),
        categories: if all { vec!["all".into()] } else { Vec::new() },
        namespaced,
    }
}

/// The text at a JSON pointer; empty where there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at a JSON pointer.
pub fn number(value: &Value, pointer: &str) -> Option<i64> {
    value.pointer(pointer).and_then(Value::as_i64)
}

/// The items of the list at a JSON pointer; none where there is no list.
pub fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The items of the list under a field, to be changed.
pub fn items_mut<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// How many entries the object at a pointer has.
pub fn count(value: &Value, pointer: &str) -> usize {
    value.pointer(pointer).and_then(Value::as_object).map_or(0, Map::len)
}

/// Sets a field that is absent or null.
pub fn set_default(object: &mut Value, field: &str, value: impl Into<Value>) {
    let Some(object) = object.as_object_mut() else { return };
    if object.get(field).is_none_or(Value::is_null) {
        object.insert(field.to_owned(), value.into());
    }
}

/// Sets a text field that is absent, null or empty.
pub fn default_text(object: &mut Value, field: &str, value: &str) {
    if object.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
        set(object, field, value.into());
    }
}

/// Sets a field.
pub fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(field.to_owned(), value);
    }
}

/// Removes a field.
pub fn unset(object: &mut Value, field: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(field);
    }
}

/// The object under a field, made where it is absent.
pub fn child<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    let map = object.as_object_mut()?;
    let child = map.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if child.is_null() {
        *child = Value::Object(Map::new());
    }
    child.is_object().then_some(child)
}
