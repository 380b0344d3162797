//! Kinds and the groups they live in.

use super::Notes;
use serde_json::Value;

/// Kind as it was written, in lower case; where it lives today, and what it is called there. All but `Deployment` were
/// kinds of the first minik8s, which had them in `v1`.
const HEADS: [(&str, &str, &str); 9] = [
    ("pod", "v1", "Pod"),
    ("service", "v1", "Service"),
    ("replicaset", "apps/v1", "ReplicaSet"),
    ("deployment", "apps/v1", "Deployment"),
    ("hpa", "autoscaling/v2", "HorizontalPodAutoscaler"),
    ("horizontalpodautoscaler", "autoscaling/v2", "HorizontalPodAutoscaler"),
    ("dns", "minik8s.io/v1alpha1", "Dns"),
    ("job", "minik8s.io/v1alpha1", "GpuJob"),
    ("workflow", "minik8s.io/v1alpha1", "Workflow"),
];

/// What a kind is called today, and where it lives.
pub(super) fn today(kind: &str) -> Option<(&'static str, &'static str)> {
    let lower = kind.to_ascii_lowercase();
    let found = HEADS.iter().find(|(old, ..)| *old == lower || format!("{old}s") == lower);
    found.map(|(_, version, kind)| (*version, *kind))
}

fn group(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}

/// True for kinds, as they are called today, whose names and fields are known here.
pub(super) fn is_ours(version: &str, kind: &str) -> bool {
    HEADS.iter().any(|(_, lives, today)| *today == kind && group(lives) == group(version))
}

/// Gives the keys that every object has their spelling.
pub(super) fn respell(object: &mut Value, notes: &mut Notes) {
    let Some(map) = object.as_object_mut() else { return };
    for name in ["apiVersion", "kind", "metadata", "spec"] {
        let odd = map.keys().find(|key| key.eq_ignore_ascii_case(name)).filter(|key| *key != name).cloned();
        if let Some(value) = odd.as_ref().filter(|_| !map.contains_key(name)).and_then(|odd| map.remove(odd)) {
            notes.add(format!("{} is spelled {name}", odd.unwrap_or_default()));
            map.insert(name.to_owned(), value);
        }
    }
}

/// Gives the object today's kind and group. Kinds of other groups are somebody else's.
pub(super) fn rename(object: &mut Value, notes: &mut Notes) {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (old_version, old_kind) = (text("apiVersion"), text("kind"));
    let Some((version, kind)) = today(&old_kind) else { return };
    let lived = group(&old_version);
    let moved = lived.is_empty() && kind != "Deployment" || lived == "apps" && old_kind != kind;
    if old_version.is_empty() || !(lived == group(version) || moved) {
        return;
    }
    // Another version of the same group is a choice.
    let version = if !lived.is_empty() && lived == group(version) { old_version.as_str() } else { version };
    if (version, kind) == (&old_version, &old_kind) {
        return;
    }
    notes.add(match version == old_version {
        true => format!("kind {old_kind} is {kind}"),
        false => format!("kind {old_kind} of {old_version} is {kind} of {version}"),
    });
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
}
