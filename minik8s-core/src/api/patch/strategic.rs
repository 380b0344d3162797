//! Strategic merge: objects merge field by field, lists by the merge key their type declares; directives in the patch
//! (`$patch`, `$retainKeys`, `$setElementOrder/x`, `$deleteFromPrimitiveList/x`) say what merging alone cannot.

use super::PatchError;
use super::lists;
use crate::api::Schemas;
use crate::api::schema::{Field, FieldType, TypeSchema};
use serde_json::{Map, Value};
use std::sync::Arc;

pub(super) const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

pub(super) struct Merger<'a> {
    pub(super) schemas: &'a Schemas,
}

/// What becomes of an object by its `$patch`.
pub(super) enum Directive {
    Merge,
    Replace,
    Delete,
}

/// Takes `$patch` out of an object of the patch.
pub(super) fn take_directive(patch: &mut Object) -> Result<Directive, PatchError> {
    match patch.remove(PATCH) {
        None => Ok(Directive::Merge),
        Some(Value::String(text)) if text == "merge" => Ok(Directive::Merge),
        Some(Value::String(text)) if text == "replace" => Ok(Directive::Replace),
        Some(Value::String(text)) if text == "delete" => Ok(Directive::Delete),
        Some(other) => {
            Err(PatchError::Directive(format!("unknown patch type: {other}; it is merge, replace or delete")))
        }
    }
}

/// A value of the patch that has no counterpart: without directives and `null`s.
pub(super) fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(key, value)| !is_directive(key) && !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, plain(value))).collect())
        }
        Value::Array(items) => {
            let special = |item: &Value| item.get(PATCH).is_some();
            Value::Array(items.into_iter().filter(|item| !special(item)).map(plain).collect())
        }
        scalar => scalar,
    }
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM)
}

impl Merger<'_> {
    /// The type of a field's value, or of the items of its list or map.
    fn item_schema(&self, field: Option<&Field>) -> Option<Arc<TypeSchema>> {
        let mut ty = &field?.ty;
        while let FieldType::List(item) | FieldType::Map(item) = ty {
            ty = item;
        }
        if let FieldType::Message(name) = ty { self.schemas.get(name) } else { None }
    }

    pub(super) fn map(
        &self,
        mut target: Object,
        mut patch: Object,
        schema: Option<&TypeSchema>,
    ) -> Result<Object, PatchError> {
        match take_directive(&mut patch)? {
            Directive::Merge => {}
            Directive::Delete => return Ok(Object::new()),
            Directive::Replace => return Ok(as_object(plain(Value::Object(patch)))),
        }
        retain_keys(&mut target, &mut patch)?;
        self.ordered_lists(&mut target, &mut patch, schema)?;
        for (key, value) in patch {
            if let Some(key) = key.strip_prefix(DELETE_FROM) {
                delete_from(&mut target, key, value)?;
            } else if value.is_null() {
                target.remove(&key);
            } else {
                let merged = self.field(target.remove(&key), value, &key, schema)?;
                target.insert(key, merged);
            }
        }
        Ok(target)
    }

    fn field(
        &self,
        target: Option<Value>,
        patch: Value,
        key: &str,
        schema: Option<&TypeSchema>,
    ) -> Result<Value, PatchError> {
        let field = schema.and_then(|s| s.field(key));
        match (target, patch) {
            (Some(Value::Object(target)), Value::Object(patch)) => {
                // The fields of a map's values are one level further down.
                let is_map = field.is_some_and(|f| matches!(f.ty, FieldType::Map(_)));
                let inner = self.item_schema(field);
                if is_map {
                    return self.map_values(target, patch, inner.as_deref());
                }
                self.map(target, patch, inner.as_deref()).map(Value::Object)
            }
            (Some(Value::Array(target)), Value::Array(patch)) if field.is_some_and(|f| f.patch.merge) => {
                self.list(target, patch, field).map(Value::Array)
            }
            (_, patch) => Ok(plain(patch)),
        }
    }

    fn map_values(&self, target: Object, patch: Object, item: Option<&TypeSchema>) -> Result<Value, PatchError> {
        let wrapper = item.map(|item| {
            let ty = FieldType::Message(item.name.clone());
            let field = |key: &String| Field { ty: ty.clone(), ..Field::named(key) };
            TypeSchema { fields: patch.keys().map(field).collect(), ..TypeSchema::named("") }
        });
        self.map(target, patch, wrapper.as_ref()).map(Value::Object)
    }

    pub(super) fn list(
        &self,
        target: Vec<Value>,
        patch: Vec<Value>,
        field: Option<&Field>,
    ) -> Result<Vec<Value>, PatchError> {
        let merge_key = field.map_or("", |f| f.patch.merge_key.as_str());
        if merge_key.is_empty() {
            return Ok(lists::merge_scalars(target, patch));
        }
        let schema = self.item_schema(field);
        lists::merge_objects(target, patch, merge_key, |target, patch| self.map(target, patch, schema.as_deref()))
    }

    /// Merges the lists whose order the patch gives, and takes them out of it.
    fn ordered_lists(
        &self,
        target: &mut Object,
        patch: &mut Object,
        schema: Option<&TypeSchema>,
    ) -> Result<(), PatchError> {
        let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
        for directive in directives {
            let Some(Value::Array(order)) = patch.remove(&directive) else {
                return Err(PatchError::Directive("invalid patch format of setElementOrder list".into()));
            };
            let key = &directive[SET_ORDER.len()..];
            let field = schema.and_then(|s| s.field(key));
            let present = match target.get(key) {
                Some(Value::Array(items)) => items.clone(),
                _ => Vec::new(),
            };
            let merged = match patch.remove(key) {
                Some(Value::Array(items)) => self.list(present.clone(), items, field)?,
                Some(Value::Null) => {
                    target.remove(key);
                    continue;
                }
                Some(other) => {
                    patch.insert(key.to_owned(), other);
                    continue;
                }
                None if present.is_empty() => continue,
                None => present.clone(),
            };
            let merge_key = field.map_or("", |f| f.patch.merge_key.as_str());
            target.insert(key.to_owned(), Value::Array(lists::arrange(merged, &order, &present, merge_key)));
        }
        Ok(())
    }
}

fn as_object(value: Value) -> Object {
    if let Value::Object(map) = value { map } else { Object::new() }
}

/// `$retainKeys`: what it does not name goes.
fn retain_keys(target: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(list) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || PatchError::Directive("invalid patch format of retainKeys".into());
    let Value::Array(list) = list else { return Err(bad()) };
    let named = |key: &str| list.iter().any(|item| item.as_str() == Some(key));
    let stray = patch.iter().any(|(key, value)| !value.is_null() && !is_directive(key) && !named(key));
    if stray {
        return Err(bad());
    }
    target.retain(|key, _| named(key));
    Ok(())
}

fn delete_from(target: &mut Object, key: &str, unwanted: Value) -> Result<(), PatchError> {
    let Value::Array(unwanted) = unwanted else {
        return Err(PatchError::Directive("invalid patch format of primitive list".into()));
    };
    if let Some(Value::Array(items)) = target.get_mut(key) {
        items.retain(|item| !unwanted.contains(item));
    }
    Ok(())
}
