//! JSON patches (RFC 6902), one operation at a time: what an operation costs is known before it is done. `copy` can
//! double an object with every operation, and `move` can bury it in itself, so that a small patch could otherwise exhaust
//! memory or stack.

use super::PatchError;
use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::Value;

/// A JSON patch has no more operations.
pub(super) const MAX_OPERATIONS: usize = 10_000;
/// Values that one patch copies or moves have no more nodes together.
pub(super) const MAX_MOVED: usize = 100_000;
/// No operation puts a value deeper: what is read from text is no deeper either.
pub(super) const MAX_DEPTH: usize = 128;

/// Applies an RFC 6902 patch.
///
/// # Errors
/// [`PatchError`] where it is none, does not fit, or makes too much of too little.
pub fn json(mut target: Value, patch: Value) -> Result<Value, PatchError> {
    let operations: json_patch::Patch =
        serde_json::from_value(patch).map_err(|e| PatchError::Malformed(e.to_string()))?;
    if operations.0.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLong(operations.0.len()));
    }
    let mut moved = 0;
    for operation in &operations.0 {
        let (size, depth) = cost(&target, operation);
        moved += size;
        if moved > MAX_MOVED {
            return Err(PatchError::TooLarge);
        }
        if depth > MAX_DEPTH {
            return Err(PatchError::TooDeep);
        }
        json_patch::patch(&mut target, std::slice::from_ref(operation)).map_err(PatchError::DoesNotFit)?;
    }
    Ok(target)
}

/// How many nodes an operation copies or moves, and how deep the deepest of those that it puts comes to lie.
fn cost(target: &Value, operation: &PatchOperation) -> (usize, usize) {
    let at = |path: &Pointer, value: Option<&Value>| path.count() + value.map_or(0, depth);
    let taken = |from: &Pointer| target.pointer(from.as_str());
    match operation {
        PatchOperation::Add(o) => (0, at(&o.path, Some(&o.value))),
        PatchOperation::Replace(o) => (0, at(&o.path, Some(&o.value))),
        PatchOperation::Move(o) => (taken(&o.from).map_or(0, nodes), at(&o.path, taken(&o.from))),
        PatchOperation::Copy(o) => (taken(&o.from).map_or(0, nodes), at(&o.path, taken(&o.from))),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => (0, 0),
    }
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn nodes(value: &Value) -> usize {
    1 + children(value).map(nodes).sum::<usize>()
}

fn depth(value: &Value) -> usize {
    1 + children(value).map(depth).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn copies_may_not_double_for_ever() {
        let mut operations = vec![json!({"op": "add", "path": "/x", "value": [1]})];
        operations.extend((0..40).map(|_| json!({"op": "copy", "from": "/x", "path": "/x/-"})));
        let refused = json(json!({}), operations.into()).unwrap_err();
        assert!(matches!(refused, PatchError::TooLarge), "{refused}");
    }

    #[test]
    fn moves_may_not_bury_an_object_in_itself() {
        let deep = (0..100).fold(json!({}), |inner, _| json!({"k": inner}));
        let inside = format!("/b{}", "/k".repeat(100));
        let mut operations = vec![json!({"op": "add", "path": "/a", "value": {}})];
        for _ in 0..5 {
            operations.push(json!({"op": "add", "path": "/b", "value": deep}));
            operations.push(json!({"op": "move", "from": "/a", "path": format!("{inside}/k")}));
            operations.push(json!({"op": "move", "from": "/b", "path": "/a"}));
        }
        let refused = json(json!({}), operations.into()).unwrap_err();
        assert!(matches!(refused, PatchError::TooDeep), "{refused}");
    }

    #[test]
    fn what_an_object_can_hold_passes() {
        let list: Vec<Value> = (0..1000).map(|n| json!({"name": n})).collect();
        let patch = json!([
            {"op": "copy", "from": "/a", "path": "/b"},
            {"op": "move", "from": "/a", "path": "/c"},
            {"op": "test", "path": "/b/999/name", "value": 999},
        ]);
        let patched = json(json!({"a": list}), patch).unwrap();
        assert_eq!((patched["b"].as_array().unwrap().len(), patched["c"][7]["name"].clone()), (1000, json!(7)));
        assert_eq!(patched.get("a"), None);
    }
}
