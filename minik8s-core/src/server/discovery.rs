//! Discovery: what the server serves, in the aggregated form of new clients and the classic form of old ones.

use super::kind::{Kind, KindNames};
use super::registry::ANYTHING;
use crate::api::api_version;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const READ_VERBS: [&str; 2] = ["get", "list"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// A document and its entity tag.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// JSON.
    pub(crate) bytes: Bytes,
    /// Quoted digest of the bytes.
    pub(crate) etag: String,
}

impl Document {
    /// Gives bytes their tag.
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = Sha256::digest(&bytes);
        let etag = digest.iter().take(16).map(|b| format!("{b:02X}")).collect::<String>();
        Self { bytes, etag: format!("\"{etag}\"") }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string())
    }
}

/// Every discovery document of one state of the registry.
pub(crate) struct Discovery {
    /// `/api` and `/apis` in aggregated form, per version of that form.
    aggregated: BTreeMap<(bool, &'static str), Document>,
    /// The classic documents by path.
    classic: BTreeMap<String, Document>,
}

/// Versions of the aggregated form.
pub(crate) const AGGREGATED: [&str; 2] = ["v2", "v2beta1"];

type Versions = BTreeMap<String, Vec<Arc<dyn Kind>>>;

impl Discovery {
    /// Describes these kinds.
    pub(crate) fn new(kinds: &[Arc<dyn Kind>]) -> Self {
        let mut groups: BTreeMap<String, Versions> = BTreeMap::new();
        for kind in kinds {
            let gvr = &kind.names().gvr;
            let versions = groups.entry(gvr.group.to_string()).or_default();
            versions.entry(gvr.version.to_string()).or_default().push(kind.clone());
        }
        for kinds in groups.values_mut().flat_map(BTreeMap::values_mut) {
            kinds.sort_by(|a, b| a.names().gvr.resource.cmp(&b.names().gvr.resource));
        }
        Self { aggregated: aggregated(&groups), classic: classic(&groups) }
    }

    /// `/api` (`core`) or `/apis` in an aggregated form.
    pub(crate) fn aggregated(&self, core: bool, version: &'static str) -> Option<&Document> {
        self.aggregated.get(&(core, version))
    }

    /// A classic document, by its path without a slash at the end.
    pub(crate) fn classic(&self, path: &str) -> Option<&Document> {
        self.classic.get(path)
    }

    /// Every path there is something at.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.classic.keys().map(String::as_str)
    }
}

fn aggregated(groups: &BTreeMap<String, Versions>) -> BTreeMap<(bool, &'static str), Document> {
    let mut documents = BTreeMap::new();
    for form in AGGREGATED {
        for core in [true, false] {
            let items: Vec<Value> = groups
                .iter()
                .filter(|(group, _)| group.is_empty() == core)
                .map(|(group, versions)| aggregated_group(group, versions))
                .collect();
            let list = json!({
                "kind": "APIGroupDiscoveryList",
                "apiVersion": format!("apidiscovery.k8s.io/{form}"),
                "metadata": {},
                "items": items,
            });
            documents.insert((core, form), Document::json(&list));
        }
    }
    documents
}

fn aggregated_group(group: &str, versions: &Versions) -> Value {
    let versions: Vec<Value> = newest_first(versions)
        .map(|(version, kinds)| {
            let named = kinds.iter().filter(|kind| has_name(kind.as_ref()));
            let resources: Vec<Value> = named.map(|kind| aggregated_resource(kind.as_ref())).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(kind: &dyn Kind) -> Value {
    let names = kind.names();
    let mut resource = json!({
        "resource": names.gvr.resource,
        "responseKind": {"group": names.gvr.group, "version": names.gvr.version, "kind": names.kind},
        "scope": if names.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": names.singular,
        "verbs": verbs(kind),
    });
    add_lists(&mut resource, names);
    let subresources: Vec<Value> = subresources(kind)
        .into_iter()
        .map(|s| {
            let kind = json!({"group": s.group, "version": s.version, "kind": s.kind});
            json!({"subresource": s.name, "responseKind": kind, "verbs": s.verbs})
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = subresources.into();
    }
    resource
}

fn has_name(kind: &dyn Kind) -> bool {
    kind.names().gvr.resource != ANYTHING
}

fn verbs(kind: &dyn Kind) -> &'static [&'static str] {
    if kind.computed().is_some() { &READ_VERBS } else { &VERBS }
}

/// Empty lists are left out: some clients stumble over them.
fn add_lists(resource: &mut Value, names: &KindNames) {
    if !names.short_names.is_empty() {
        resource["shortNames"] = json!(names.short_names);
    }
    if !names.categories.is_empty() {
        resource["categories"] = json!(names.categories);
    }
}

struct Subresource {
    name: String,
    group: String,
    version: String,
    kind: String,
    verbs: Vec<&'static str>,
}

fn subresources(kind: &dyn Kind) -> Vec<Subresource> {
    let names = kind.names();
    let mut found = Vec::new();
    if kind.has_status() {
        let (group, version) = (names.gvr.group.to_string(), names.gvr.version.to_string());
        let (name, kind) = ("status".to_owned(), names.kind.to_string());
        found.push(Subresource { name, group, version, kind, verbs: SUBRESOURCE_VERBS.to_vec() });
    }
    if kind.scale().is_some() {
        let (group, version) = ("autoscaling".to_owned(), "v1".to_owned());
        let (name, kind) = ("scale".to_owned(), "Scale".to_owned());
        found.push(Subresource { name, group, version, kind, verbs: SUBRESOURCE_VERBS.to_vec() });
    }
    found.extend(kind.actions().iter().map(|action| Subresource {
        name: action.name.to_owned(),
        group: action.group.to_owned(),
        version: action.version.to_owned(),
        kind: action.kind.to_owned(),
        verbs: action.verbs.to_vec(),
    }));
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn classic(groups: &BTreeMap<String, Versions>) -> BTreeMap<String, Document> {
    let mut documents = BTreeMap::new();
    let core: Vec<&str> = groups.get("").into_iter().flat_map(newest_first).map(|(v, _)| v).collect();
    let addresses = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]);
    let versions = json!({"kind": "APIVersions", "versions": core, "serverAddressByClientCIDRs": addresses});
    documents.insert("/api".to_owned(), Document::json(&versions));
    let mut named = Vec::new();
    for (group, versions) in groups {
        for (version, kinds) in versions {
            let prefix = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
            documents.insert(format!("{prefix}/{version}"), Document::json(&resource_list(group, version, kinds)));
        }
        if !group.is_empty() {
            let mut description = classic_group(group, versions);
            named.push(Value::Object(description.clone()));
            description.insert("kind".into(), "APIGroup".into());
            description.insert("apiVersion".into(), "v1".into());
            documents.insert(format!("/apis/{group}"), Document::json(&Value::Object(description)));
        }
    }
    let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": named});
    documents.insert("/apis".to_owned(), Document::json(&list));
    documents
}

fn classic_group(group: &str, versions: &Versions) -> Map<String, Value> {
    let versions: Vec<Value> = newest_first(versions)
        .map(|(version, _)| json!({"groupVersion": api_version(group, version), "version": version}))
        .collect();
    let mut description = Map::new();
    description.insert("name".into(), group.into());
    description.insert("preferredVersion".into(), versions.first().cloned().unwrap_or_default());
    description.insert("versions".into(), versions.into());
    description
}

fn resource_list(group: &str, version: &str, kinds: &[Arc<dyn Kind>]) -> Value {
    let named = kinds.iter().filter(|kind| has_name(kind.as_ref()));
    let resources: Vec<Value> = named.flat_map(|kind| classic_resources(kind.as_ref())).collect();
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version(group, version),
        "resources": resources,
    })
}

fn classic_resources(kind: &dyn Kind) -> Vec<Value> {
    let names = kind.names();
    let mut resource = json!({
        "name": names.gvr.resource,
        "singularName": names.singular,
        "namespaced": names.namespaced,
        "kind": names.kind,
        "verbs": verbs(kind),
    });
    add_lists(&mut resource, names);
    let mut resources = vec![resource];
    for sub in subresources(kind) {
        let mut resource = json!({
            "name": format!("{}/{}", names.gvr.resource, sub.name),
            "singularName": "",
            "namespaced": names.namespaced,
            "kind": sub.kind,
            "verbs": sub.verbs,
        });
        if sub.group != names.gvr.group || sub.version != names.gvr.version {
            resource["group"] = sub.group.into();
            resource["version"] = sub.version.into();
        }
        resources.push(resource);
    }
    resources
}

/// Stable versions before beta before alpha, larger numbers before smaller ones: the first is preferred.
fn newest_first(versions: &Versions) -> impl Iterator<Item = (&str, &Vec<Arc<dyn Kind>>)> {
    let mut sorted: Vec<_> = versions.iter().map(|(version, kinds)| (version.as_str(), kinds)).collect();
    sorted.sort_by_key(|(version, _)| std::cmp::Reverse(maturity(version)));
    sorted.into_iter()
}

fn maturity(version: &str) -> (u8, u32, u32) {
    let rest = version.trim_start_matches('v');
    let (level, split) = match (rest.split_once("beta"), rest.split_once("alpha")) {
        (Some(split), _) => (1, split),
        (_, Some(split)) => (0, split),
        _ => (2, (rest, "")),
    };
    (level, split.0.parse().unwrap_or_default(), split.1.parse().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_maturity() {
        let mut versions = ["v1alpha1", "v2beta1", "v1", "v2", "v1beta2", "v10"];
        versions.sort_by_key(|v| std::cmp::Reverse(maturity(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1"]);
    }
}
