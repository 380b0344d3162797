//! Templates and revisions: which ReplicaSet is the deployment's present one, what a new one is called, how revisions are
//! numbered. Pure.

use super::super::controller_reference;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Label by which pods and sets of one template are told from those of another.
pub const HASH: &str = "pod-template-hash";
/// The number of a set among its deployment's; on the deployment, that of the present one.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Numbers a set had before, when its template was the present one.
pub const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// How many replicas the deployment wanted when the set was scaled last.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// How many it allowed, surge included.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// True where a set was made from the deployment's present template.
fn same_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let want = deployment.spec.as_ref().map(|s| &s.template);
    let have = set.spec.as_ref().and_then(|s| s.template.as_ref());
    match (want, have) {
        (Some(want), Some(have)) => bare(want) == bare(have),
        _ => false,
    }
}

/// A template without the label that is added to it; empty maps are as good as none.
fn bare(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut bare = template.clone();
    let mut meta = bare.metadata.take().unwrap_or_default();
    meta.creation_timestamp = None;
    meta.labels = meta.labels.map(|mut l| {
        l.remove(HASH);
        l
    });
    meta.labels = meta.labels.filter(|l| !l.is_empty());
    meta.annotations = meta.annotations.filter(|a| !a.is_empty());
    bare.metadata = Some(meta);
    bare
}

/// The set of the present template: the oldest one, should there be several.
pub fn find_new(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<usize> {
    let mut same: Vec<_> = (0..sets.len()).filter(|&i| same_template(deployment, &sets[i])).collect();
    same.sort_by_key(|&i| age(&sets[i]));
    same.first().copied()
}

/// For sorting by age, oldest first.
pub fn age(set: &ReplicaSet) -> (Option<jiff::Timestamp>, Option<String>) {
    (set.metadata.creation_timestamp.as_ref().map(|t| t.0), set.metadata.name.clone())
}

/// A number in an annotation.
pub fn annotated(meta: &ObjectMeta, key: &str) -> Option<i64> {
    meta.annotations.as_ref()?.get(key)?.parse().ok()
}

/// The revision of a set, 0 where it has none.
pub fn revision(set: &ReplicaSet) -> i64 {
    annotated(&set.metadata, REVISION).unwrap_or(0)
}

/// The name part and label of a template: the same for equal templates.
pub fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let text = serde_json::to_vec(&bare(template)).unwrap_or_default();
    let salt = (collisions > 0).then(|| collisions.to_le_bytes());
    let fnv = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = text.iter().chain(salt.iter().flatten()).fold(0x811c_9dc5, fnv);
    // Digits that cannot spell words, as in generated names.
    const DIGITS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|b| char::from(DIGITS[usize::from(b) % DIGITS.len()])).collect()
}

/// A new set for the deployment's present template.
pub fn new_set(deployment: &Deployment, replicas: i32, revision: i64, desired: (i32, i32)) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
    let hash = hash(&spec.template, collisions);
    let mut template = spec.template;
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(HASH.into(), hash.clone());
    let labels = meta.labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH.into(), hash.clone());
    let mut annotations = inherited(deployment);
    annotations.insert(REVISION.into(), revision.to_string());
    annotations.insert(DESIRED.into(), desired.0.to_string());
    annotations.insert(MAX.into(), desired.1.to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(replicas),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// The deployment's annotations that its sets carry too, such as `kubernetes.io/change-cause`.
fn inherited(deployment: &Deployment) -> BTreeMap<String, String> {
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    for own in [REVISION, HISTORY, DESIRED, MAX, LAST_APPLIED] {
        annotations.remove(own);
    }
    annotations
}

/// The annotations that the present set ought to have: those of the deployment, and the newest revision. Where that is
/// not the one it had, the old number goes into its history.
pub fn current_annotations(deployment: &Deployment, set: &ReplicaSet, newest: i64) -> BTreeMap<String, String> {
    let mut annotations = set.metadata.annotations.clone().unwrap_or_default();
    annotations.extend(inherited(deployment));
    let old = revision(set);
    if old < newest {
        annotations.insert(REVISION.into(), newest.to_string());
        if old > 0 {
            let history = annotations.remove(HISTORY).filter(|h| !h.is_empty());
            let mut numbers: Vec<String> = history.iter().flat_map(|h| h.split(',')).map(str::to_owned).collect();
            if !numbers.contains(&old.to_string()) {
                numbers.push(old.to_string());
            }
            annotations.insert(HISTORY.into(), numbers.join(","));
        }
    }
    annotations
}
