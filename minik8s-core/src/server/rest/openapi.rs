//! OpenAPI v3: an index, and a document per group and version, made when it is first asked for.

use super::body::{Body, full};
use super::media::ranges;
use super::status::respond;
use crate::api::{Schemas, api_version, git_version};
use crate::server::discovery::Document;
use crate::server::kind::{Kind, KindNames};
use crate::server::registry::{ANYTHING, KindTable};
use http::Response;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The documents of one state of the registry.
pub(crate) struct OpenApi {
    index: Document,
    /// By path below `/openapi/v3/`.
    versions: BTreeMap<String, Version>,
}

struct Version {
    group: String,
    version: String,
    document: OnceLock<Document>,
}

impl OpenApi {
    /// Describes these kinds.
    pub(crate) fn new(table: &KindTable) -> Self {
        let mut paths = Map::new();
        let mut versions = BTreeMap::new();
        for (group, version) in table.versions() {
            let path = prefix(&group, &version);
            let url = format!("/openapi/v3/{path}?hash={}", hash(table, &group, &version));
            paths.insert(path.clone(), json!({"serverRelativeURL": url}));
            versions.insert(path, Version { group, version, document: OnceLock::new() });
        }
        Self { index: Document::new(json!({"paths": paths}).to_string()), versions }
    }

    /// The list of the documents.
    pub(crate) fn index(&self) -> &Document {
        &self.index
    }

    /// The document at a path such as `apis/apps/v1`.
    pub(crate) fn document(&self, table: &KindTable, schemas: &Schemas, path: &str) -> Option<&Document> {
        let version = self.versions.get(path)?;
        Some(version.document.get_or_init(|| {
            let all = table.of_version(&version.group, &version.version);
            let kinds: Vec<_> = all.filter(|kind| kind.names().gvr.resource != ANYTHING).cloned().collect();
            Document::new(describe(&kinds, schemas).to_string())
        }))
    }
}

const V2_FAMILY: &str = "application/com.github.proto-openapi.spec.v2";
const V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The head of an OpenAPI v2 document, in the only encoding its readers know.
#[derive(Clone, PartialEq, prost::Message)]
struct V2Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<V2Info>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct V2Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

/// OpenAPI v2 is the past and says nothing here; but kubectl fetches it before it says that a kind is unknown, and
/// would say something else where it is missing. Never JSON: those who ask for that do without.
pub(crate) fn v2(accept: &str) -> Option<Response<Body>> {
    if !ranges(accept).iter().any(|range| range.media.starts_with(V2_FAMILY)) {
        return None;
    }
    let info = V2Info { title: "Kubernetes".to_owned(), version: git_version() };
    let document = V2Document { swagger: "2.0".to_owned(), info: Some(info) };
    Some(respond(200, V2, full(prost::Message::encode_to_vec(&document))))
}

/// `api/v1`, `apis/apps/v1`
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Clients keep a document for as long as its hash stays. A document follows from this server's version and the kinds,
/// so that the index needs no documents.
fn hash(table: &KindTable, group: &str, version: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(git_version());
    for kind in table.of_version(group, version) {
        digest.update(format!("{:?} {}", kind.names(), kind.schema()));
    }
    digest.finalize().iter().take(16).map(|b| format!("{b:02X}")).collect()
}

/// What clients look up: which parameters a patch of a kind takes and in which media types, and how its objects are
/// made. Strategic merge is left out of the media types: kubectl knows the built-in types by itself, and better.
fn describe(kinds: &[Arc<dyn Kind>], schemas: &Schemas) -> Value {
    let mut paths = Map::new();
    for kind in kinds {
        let names = kind.names();
        let collection = collection(names);
        paths.insert(format!("{collection}/{{name}}"), json!({"patch": patch(names)}));
        paths.insert(collection, json!({"get": list(names)}));
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": git_version()},
        "paths": paths,
        "components": {"schemas": schemas.components(kinds.iter().map(|kind| kind.schema()))},
    })
}

fn collection(names: &KindNames) -> String {
    let scope = if names.namespaced { "namespaces/{namespace}/" } else { "" };
    format!("/{}/{scope}{}", prefix(&names.gvr.group, &names.gvr.version), names.gvr.resource)
}

fn list(names: &KindNames) -> Value {
    json!({
        "operationId": format!("list {} {}", api_version(&names.gvr.group, &names.gvr.version), names.kind),
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "list",
        "x-kubernetes-group-version-kind": group_version_kind(names),
    })
}

fn group_version_kind(names: &KindNames) -> Value {
    json!({"group": names.gvr.group, "version": names.gvr.version, "kind": names.kind})
}

fn patch(names: &KindNames) -> Value {
    let parameters: Vec<Value> = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")]
        .into_iter()
        .chain([("force", "boolean")])
        .map(|(name, kind)| json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}}))
        .collect();
    let content = ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
    let content: Map<String, Value> = content.into_iter().map(|media| (media.to_owned(), json!({}))).collect();
    let gvr = &names.gvr;
    json!({
        "operationId": format!("patch {} {}", api_version(&gvr.group, &gvr.version), names.kind),
        "parameters": parameters,
        "requestBody": {"content": content, "required": true},
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": group_version_kind(names),
    })
}
