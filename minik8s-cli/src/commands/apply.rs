//! `apply`: make objects match manifests. The last manifest applied is kept in an annotation (the one kubectl uses), so
//! that what a new manifest leaves out can be told from what others have added.

use crate::api::{Conn, Resource, Resources};
use crate::args::Apply;
use crate::manifest::{self, Manifest};
use crate::output::say;
use anyhow::{Context, Result, anyhow};
use minik8s_core::api::schema::{Field, FieldType, Schemas};
use serde_json::{Map, Value, json};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub(crate) async fn run(conn: &Conn, options: &Apply) -> Result<()> {
    let manifests = manifest::read_all(&options.files.files, options.files.recursive)?;
    let known = Resources::load(conn).await?;
    // Everything that can be told beforehand is told before anything changes.
    let planned: Vec<(Manifest, Resource)> =
        manifests.into_iter().map(|m| resource_of(conn, &known, &m).map(|r| (m, r))).collect::<Result<_>>()?;
    if !options.dry_run {
        for (manifest, resource) in &planned {
            check(conn, manifest, resource).await?;
        }
    }
    for (manifest, resource) in &planned {
        let done = apply_one(conn, manifest, resource, options.dry_run).await?;
        let suffix = if options.dry_run { " (dry run)" } else { "" };
        say(&format!("{}/{} {done}{suffix}", resource.label(), manifest.name()));
    }
    Ok(())
}

fn resource_of(conn: &Conn, known: &Resources, manifest: &Manifest) -> Result<Resource> {
    let (version, kind) = (manifest.api_version(), manifest.kind());
    let resource = known.find_gvk(version, kind).cloned().ok_or_else(|| {
        let hint = known.suggest(kind).map(|s| format!("; did you mean {s}?")).unwrap_or_default();
        anyhow!("{}: the cluster has no kind {kind:?} in apiVersion {version:?}{hint}", manifest.place())
    })?;
    conn.namespace_of(&resource, manifest.namespace()).with_context(|| manifest.place())?;
    Ok(resource)
}

/// A dry run, so that a mistake in the third object does not leave two applied. Objects whose namespace is made by an
/// earlier manifest cannot be checked yet, and are not.
async fn check(conn: &Conn, manifest: &Manifest, resource: &Resource) -> Result<()> {
    match apply_one(conn, manifest, resource, true).await {
        Err(error) if crate::api::is_not_found(&error) => Ok(()),
        other => other.map(|_| ()),
    }
}

async fn apply_one(conn: &Conn, manifest: &Manifest, resource: &Resource, dry_run: bool) -> Result<&'static str> {
    let namespace = manifest.namespace().unwrap_or(&conn.namespace);
    let query =
        format!("?fieldManager=minik8s-apply&fieldValidation=Strict{}", if dry_run { "&dryRun=All" } else { "" });
    let wanted = annotated(&manifest.object)?;
    if manifest.name().is_empty() {
        let path = resource.path(namespace, None) + &query;
        conn.post(&path, &wanted).await.map_err(|e| placed(e, manifest))?;
        return Ok("created");
    }
    let path = resource.path(namespace, Some(manifest.name()));
    let existing = match conn.get(&path).await {
        Ok(object) => object,
        Err(error) if crate::api::is_not_found(&error) => {
            let path = resource.path(namespace, None) + &query;
            conn.post(&path, &wanted).await.map_err(|e| placed(e, manifest))?;
            return Ok("created");
        }
        Err(error) => return Err(error),
    };
    let patch = patch(&existing, wanted, &type_name(resource));
    let kind = if is_builtin(resource) { crate::api::STRATEGIC } else { crate::api::MERGE };
    let now = conn.patch(&(path + &query), kind, &patch).await.map_err(|e| placed(e, manifest))?;
    let same = dry_run && now["spec"] == existing["spec"] && now["data"] == existing["data"]
        || now["metadata"]["resourceVersion"] == existing["metadata"]["resourceVersion"];
    Ok(if same { "unchanged" } else { "configured" })
}

fn is_builtin(resource: &Resource) -> bool {
    Schemas::builtin().get(&type_name(resource)).is_some()
}

/// The type's name in the schema table: `io.k8s.api.apps.v1.Deployment`.
fn type_name(resource: &Resource) -> String {
    let group = match resource.group.as_str() {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    };
    format!("io.k8s.api.{group}.{}.{}", resource.version, resource.kind)
}

/// The manifest with itself in the annotation.
fn annotated(object: &Value) -> Result<Value> {
    let mut out = object.clone();
    let text = serde_json::to_string(object)? + "\n";
    let metadata = out.get_mut("metadata").and_then(Value::as_object_mut).context("metadata must be a map")?;
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations.as_object_mut().context("metadata.annotations must be a map")?.insert(LAST_APPLIED.into(), text.into());
    Ok(out)
}

/// What turns `existing` into `wanted`: the manifest itself, plus deletions of what the last one had and this one has
/// not. The server merges; what is equal changes nothing.
fn patch(existing: &Value, mut wanted: Value, type_name: &str) -> Value {
    let last = existing["metadata"]["annotations"][LAST_APPLIED].as_str();
    if let Some(last) = last.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        add_deletions(&last, &mut wanted, type_name);
    }
    wanted
}

fn add_deletions(last: &Value, wanted: &mut Value, type_name: &str) {
    let (Value::Object(last), Value::Object(wanted)) = (last, wanted) else { return };
    for (key, old) in last {
        let field = Schemas::builtin().get(type_name).and_then(|t| t.field(key).cloned());
        match (old, wanted.get_mut(key)) {
            (_, None) => {
                wanted.insert(key.clone(), Value::Null);
            }
            (Value::Object(_), Some(new)) => {
                add_deletions(old, new, field.as_ref().map(type_of).unwrap_or_default());
            }
            (Value::Array(old), Some(Value::Array(new))) => {
                if let Some(field) = field.filter(|f| f.patch.merge && !f.patch.merge_key.is_empty()) {
                    delete_items(old, new, &field.patch.merge_key, type_of(&field));
                }
            }
            _ => {}
        }
    }
}

/// The type of a field's objects, or of the items of its list.
fn type_of(field: &Field) -> &str {
    match &field.ty {
        FieldType::Message(name) => name,
        FieldType::List(inner) => match &**inner {
            FieldType::Message(name) => name,
            _ => "",
        },
        _ => "",
    }
}

/// Items of a keyed list that are gone are deleted by their key; those that stay are compared inside.
fn delete_items(old: &[Value], new: &mut Vec<Value>, key: &str, type_name: &str) {
    for item in old {
        match new.iter_mut().find(|n| n.get(key) == item.get(key)) {
            Some(same) => add_deletions(item, same, type_name),
            None => {
                let mut gone = Map::new();
                gone.insert(key.to_owned(), item.get(key).cloned().unwrap_or_default());
                gone.insert("$patch".into(), "delete".into());
                new.push(Value::Object(gone));
            }
        }
    }
}

/// Says where in the manifest the field stands that the server's error names.
fn placed(error: anyhow::Error, manifest: &Manifest) -> anyhow::Error {
    let place = match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => field_of(status).map(|f| manifest.place_of(&f)),
        _ => None,
    };
    let place = place.unwrap_or_else(|| manifest.place());
    error.context(format!("{place}: {} {:?} was refused", manifest.kind(), manifest.name()))
}

/// The first field that a Status names, in its causes or in its text.
fn field_of(status: &kube::core::Status) -> Option<String> {
    let cause = status.details.as_ref().and_then(|d| d.causes.first()).map(|c| c.field.clone());
    cause.filter(|f| !f.is_empty()).or_else(|| {
        let after = status.message.split("field \"").nth(1)?;
        Some(after.split('"').next()?.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_new_manifest_leaves_out_is_deleted_and_nothing_else() {
        let last = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}},
            "spec": {"paused": true, "template": {"spec": {"containers": [{"name": "x", "command": ["a"]}, {"name": "y"}]}}}
        });
        let existing = json!({"metadata": {"annotations": {LAST_APPLIED: last.to_string()}}});
        let wanted = json!({
            "metadata": {"labels": {"a": "1"}},
            "spec": {"template": {"spec": {"containers": [{"name": "x"}]}}}
        });
        let expected = json!({
            "metadata": {"labels": {"a": "1", "b": null}},
            "spec": {"paused": null, "template": {"spec": {"containers": [
                {"name": "x", "command": null}, {"name": "y", "$patch": "delete"}
            ]}}}
        });
        assert_eq!(patch(&existing, wanted, "io.k8s.api.apps.v1.Deployment"), expected);
    }
}
