//! What every write goes through before it is committed: system metadata, the split of status and the rest,
//! defaulting, the kind's own door, admission rules, validation.

use super::Served;
use super::asking::Asking;
use crate::api::{ApiResult, Target, metadata};
use crate::client::WriteOptions;
use crate::clock::rfc3339;
use crate::server::{AdmissionRequest, ApiServer, FieldErrors, Kind};
use serde_json::{Map, Value};

/// Metadata that belongs to the server, not to writers.
const SYSTEM: [&str; 8] = [
    "name",
    "namespace",
    "generateName",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
];

/// Metadata that is never stored.
const DROPPED: [&str; 3] = ["resourceVersion", "selfLink", "managedFields"];

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status, where the kind has one.
    Main,
    /// The status alone.
    Status,
    /// Whatever an action of the kind itself changed: neither split nor checked again.
    Action,
}

impl ApiServer {
    /// Defaults, admits and validates a new object. System metadata is set already.
    pub(crate) async fn prepare_new(
        &self,
        served: &Served,
        target: &Target,
        new: &mut Value,
        options: &WriteOptions,
    ) -> ApiResult<()> {
        if served.kind.has_status()
            && !served.kind.keeps_status()
            && let Some(object) = new.as_object_mut()
        {
            object.remove("status");
        }
        self.through_the_doors(served, target, new, None, options).await
    }

    /// The object that a proposed change leads to.
    pub(crate) async fn prepare_change(
        &self,
        served: &Served,
        target: &Target,
        (old, proposed): (&Value, Value),
        part: Part,
        options: &WriteOptions,
    ) -> ApiResult<Value> {
        let mut new = carry_over(served.kind.as_ref(), old, proposed, part);
        if part == Part::Main {
            self.through_the_doors(served, target, &mut new, Some(old), options).await?;
            bump_generation(served.kind.as_ref(), old, &mut new);
        }
        Ok(new)
    }

    async fn through_the_doors(
        &self,
        served: &Served,
        target: &Target,
        new: &mut Value,
        old: Option<&Value>,
        options: &WriteOptions,
    ) -> ApiResult<()> {
        let kind = served.kind.as_ref();
        let asking = Asking { server: self, user: options.user.as_ref() };
        kind.default(new);
        kind.admit(new, old, &asking).await?;
        let request = AdmissionRequest { target, kind, old, dry_run: options.dry_run };
        for rule in &self.admission {
            rule.admit(&request, new, &asking).await?;
        }
        let mut errors = FieldErrors::default();
        metadata::validate(new, kind.name_rule(), kind.names().namespaced, &mut errors);
        if let Some(old) = old {
            metadata::validate_update(new, old, &mut errors);
        }
        kind.validate(new, old, &mut errors);
        if errors.0.is_empty() {
            return Ok(());
        }
        let name = new.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        Err(super::resolve::invalid(kind, name, errors.0))
    }

    /// Gives a new object its identity.
    pub(crate) fn identify(&self, kind: &dyn Kind, target: &Target, new: &mut Value) {
        let names = kind.names();
        let uid = self.dice.uid();
        let suffix = self.dice.suffix();
        let created = rfc3339(self.clock.now());
        let has_generation = kind.desired(new).is_some();
        let Some(object) = new.as_object_mut() else { return };
        object.insert("kind".into(), names.kind.as_ref().into());
        object.insert("apiVersion".into(), names.gvr.api_version().into());
        let meta = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        let Some(meta) = meta.as_object_mut() else { return };
        for dropped in DROPPED.iter().chain(&["deletionTimestamp", "deletionGracePeriodSeconds"]) {
            meta.remove(*dropped);
        }
        if let Some(namespace) = target.namespace.as_deref().filter(|_| names.namespaced) {
            meta.insert("namespace".into(), namespace.into());
        }
        let unnamed = meta.get("name").and_then(Value::as_str).unwrap_or_default().is_empty();
        let prefix = meta.get("generateName").and_then(Value::as_str).unwrap_or_default();
        if unnamed && !prefix.is_empty() {
            let name = generated_name(prefix, &suffix);
            meta.insert("name".into(), name.into());
        }
        meta.insert("uid".into(), uid.into());
        meta.insert("creationTimestamp".into(), created.into());
        tidy(meta);
        meta.remove("generation");
        if has_generation {
            meta.insert("generation".into(), 1.into());
        }
    }
}

/// A name of at most 63 characters.
fn generated_name(prefix: &str, suffix: &str) -> String {
    let room = 63 - suffix.len();
    let cut = prefix.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= room).last();
    format!("{}{suffix}", &prefix[..cut.unwrap_or_default()])
}

/// Takes from the proposal what this write may change, and everything else from the object as it is.
fn carry_over(kind: &dyn Kind, old: &Value, proposed: Value, part: Part) -> Value {
    if part == Part::Status {
        let mut new = old.clone();
        set(&mut new, "status", proposed.get("status").cloned());
        return new;
    }
    let mut new = proposed;
    for head in ["kind", "apiVersion"] {
        set(&mut new, head, old.get(head).cloned());
    }
    let old_meta = old.get("metadata");
    if !new.get("metadata").is_some_and(Value::is_object) {
        set(&mut new, "metadata", Some(Value::Object(Map::new())));
    }
    if let Some(meta) = new.get_mut("metadata") {
        for name in SYSTEM {
            set(meta, name, old_meta.and_then(|m| m.get(name)).cloned());
        }
        for name in DROPPED {
            set(meta, name, None);
        }
        if let Some(meta) = meta.as_object_mut() {
            tidy(meta);
        }
    }
    if part == Part::Main && kind.has_status() {
        set(&mut new, "status", old.get("status").cloned());
    }
    new
}

/// Removes empty labels, annotations, finalizers and owners, so that they never count as a change.
fn tidy(meta: &mut Map<String, Value>) {
    for name in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = match meta.get(name) {
            Some(Value::Null) => true,
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Object(items)) => items.is_empty(),
            _ => false,
        };
        if empty {
            meta.remove(name);
        }
    }
}

fn set(object: &mut Value, name: &str, value: Option<Value>) {
    let Some(object) = object.as_object_mut() else { return };
    match value {
        Some(value) => drop(object.insert(name.to_owned(), value)),
        None => drop(object.remove(name)),
    }
}

/// Counts a change of the desired state.
fn bump_generation(kind: &dyn Kind, old: &Value, new: &mut Value) {
    if kind.desired(new).is_none() || kind.desired(new) == kind.desired(old) {
        return;
    }
    raise_generation(new);
}

/// Adds one to the generation of an object that has one.
pub(crate) fn raise_generation(new: &mut Value) {
    if let Some(generation) = new.pointer_mut("/metadata/generation")
        && let Some(number) = generation.as_i64()
    {
        *generation = (number + 1).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        assert_eq!(generated_name("web-", "abcde"), "web-abcde");
        assert_eq!(generated_name(&"x".repeat(80), "abcde").len(), 63);
    }
}
