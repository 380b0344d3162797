//! Merging and ordering of lists in a strategic merge patch.

use super::PatchError;
use super::strategic::{Directive, plain, take_directive};
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// Scalars: what the patch names comes first where it is new, and nothing occurs twice.
pub(super) fn merge_scalars(target: Vec<Value>, patch: Vec<Value>) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::with_capacity(target.len() + patch.len());
    for item in target.iter().chain(&patch) {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    arrange(merged, &patch, &target, "")
}

/// Objects told apart by `merge_key`; `merge` joins two of the same key.
pub(super) fn merge_objects(
    mut target: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
    merge: impl Fn(Object, Object) -> Result<Object, PatchError>,
) -> Result<Vec<Value>, PatchError> {
    let (mut wanted, mut replace) = (Vec::new(), false);
    for item in patch {
        let Value::Object(mut item) = item else {
            return Err(PatchError::Directive(format!(
                "an item of a list merged by {merge_key:?} is no object: {item}"
            )));
        };
        match take_directive(&mut item)? {
            Directive::Merge if item.is_empty() => {}
            Directive::Merge => wanted.push(item),
            Directive::Replace => {
                replace = true;
                if !item.is_empty() {
                    wanted.push(item);
                }
            }
            Directive::Delete => {
                let key = identity(&item, merge_key)?.clone();
                target.retain(|present| present.get(merge_key) != Some(&key));
            }
        }
    }
    if replace {
        return Ok(wanted.into_iter().map(|item| plain(Value::Object(item))).collect());
    }
    let (order, mut merged) = (wanted.iter().cloned().map(Value::Object).collect::<Vec<_>>(), target.clone());
    for item in wanted {
        let key = identity(&item, merge_key)?;
        match merged.iter_mut().find(|present| present.get(merge_key) == Some(key)) {
            Some(Value::Object(present)) => *present = merge(std::mem::take(present), item)?,
            _ => merged.push(plain(Value::Object(item))),
        }
    }
    Ok(arrange(merged, &order, &target, merge_key))
}

fn identity<'a>(item: &'a Object, merge_key: &str) -> Result<&'a Value, PatchError> {
    let missing = || format!("map: {} does not contain declared merge key: {merge_key}", Value::Object(item.clone()));
    item.get(merge_key).filter(|key| !key.is_null()).ok_or_else(|| PatchError::Directive(missing()))
}

/// What tells an item of a list from the others: the value of its merge key, or the scalar itself.
fn key<'a>(item: &'a Value, merge_key: &str) -> &'a Value {
    if merge_key.is_empty() { item } else { item.get(merge_key).unwrap_or(item) }
}

fn position(list: &[Value], item: &Value, merge_key: &str) -> Option<usize> {
    list.iter().position(|other| key(other, merge_key) == key(item, merge_key))
}

/// Puts merged items in order: those named by `order` in that order, the others as they stood in `before`; where the
/// two meet, an unnamed item comes first only if it stood before a named one.
pub(super) fn arrange(merged: Vec<Value>, order: &[Value], before: &[Value], merge_key: &str) -> Vec<Value> {
    let size = merged.len();
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(order, item, merge_key).is_some());
    named.sort_by_key(|item| position(order, item, merge_key));
    others.sort_by_key(|item| position(before, item, merge_key).unwrap_or(usize::MAX));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    let mut out = Vec::with_capacity(size);
    while let (Some(left), Some(right)) = (others.peek(), named.peek()) {
        let places = position(before, left, merge_key).zip(position(before, right, merge_key));
        let next = if places.is_some_and(|(l, r)| l < r) { others.next() } else { named.next() };
        out.extend(next);
    }
    out.extend(others);
    out.extend(named);
    out
}
