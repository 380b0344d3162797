//! Writes one pod's status to the API: only what changed, the newest state wins, retried until it works. In the end
//! it lets the record go.

use super::context::Context;
use super::pod;
use super::pods::PodHandle;
use crate::api::{ApiError, ApiResult};
use crate::client::{DeleteOptions, DeletePreconditions, PatchType};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::sync::watch;

/// What the API should show.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wish {
    pub(crate) status: PodStatus,
    /// Nothing of the pod is left on this node.
    pub(crate) delete: bool,
}

/// What the API shows, as far as is known here.
enum Base {
    /// What the record last seen says.
    Record,
    /// This, for it was written last.
    Written(Value),
    /// A write may or may not have been done.
    Unknown,
}

/// Runs as long as the pod's worker.
pub(crate) async fn write(context: Arc<Context>, handle: Arc<PodHandle>, mut wishes: watch::Receiver<Option<Wish>>) {
    let mut base = Base::Record;
    let mut failures = 0;
    let mut fresh = true;
    loop {
        if fresh && wishes.changed().await.is_err() {
            return;
        }
        let Some(wish) = wishes.borrow_and_update().clone() else { continue };
        // By now the name may be another pod's.
        if handle.is_gone() {
            return;
        }
        match grant(&context, &handle.pod(), &wish, &mut base).await {
            Ok(()) => (failures, fresh) = (0, true),
            // Somebody else took the record away, or made another pod of that name: the informer will tell.
            Err(error) if of_another(&error) => (failures, fresh) = (0, true),
            Err(error) => {
                failures += 1;
                tracing::warn!(pod = pod::key(&handle.pod()), %error, "cannot write the pod's status");
                let pause = tokio::time::sleep(context.retry.delay(failures));
                tokio::select! {
                    biased;
                    () = pause => fresh = false,
                    changed = wishes.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        fresh = false;
                    }
                }
            }
        }
    }
}

/// The record is not this pod's any more.
fn of_another(error: &ApiError) -> bool {
    error.is_not_found() || error.is_conflict() || error.is_of_another()
}

async fn grant(context: &Context, pod: &Pod, wish: &Wish, base: &mut Base) -> ApiResult<()> {
    let api = context.client.api::<Pod>(pod::namespace(pod));
    let to_json = |status: &PodStatus| serde_json::to_value(status).map_err(|e| ApiError::internal(e.to_string()));
    let new = to_json(&wish.status)?;
    let old = match std::mem::replace(base, Base::Unknown) {
        Base::Written(old) if !pod::is_given_up(pod) => old,
        Base::Written(_) => to_json(pod::status(pod))?,
        Base::Record => to_json(pod::status(pod))?,
        Base::Unknown => to_json(pod::status(&api.get(pod::name(pod)).await?))?,
    };
    let new = steady(&old, new);
    // That a pod has ended is the last word on it: an agent that starts again while the pod goes finds nothing of it,
    // and would call it pending.
    let new = if has_ended(&old) && !has_ended(&new) { old.clone() } else { new };
    if let Some(status) = difference(&old, &new) {
        let patch = json!({"metadata": {"uid": pod::uid(pod)}, "status": status});
        api.patch_status(pod::name(pod), PatchType::StrategicMerge, &patch).await?;
    }
    *base = Base::Written(new);
    if wish.delete {
        let preconditions = DeletePreconditions { uid: Some(pod::uid(pod).to_owned()), resource_version: None };
        let options = DeleteOptions { grace_period_seconds: Some(0), preconditions, ..DeleteOptions::default() };
        api.delete(pod::name(pod), &options).await?;
    }
    Ok(())
}

/// `new`, where conditions that say the same as in `old` have the time they have there. The worker takes it from the record
/// it has seen last, which may be older than what was written since: two such times would replace each other for ever.
fn steady(old: &Value, mut new: Value) -> Value {
    let before = old["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    for condition in new.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = before.iter().find(|c| c["type"] == condition["type"] && c["status"] == condition["status"]);
        if let Some(time) = same.and_then(|same| same.get("lastTransitionTime")) {
            condition["lastTransitionTime"] = time.clone();
        }
    }
    new
}

fn has_ended(status: &Value) -> bool {
    matches!(status.get("phase").and_then(Value::as_str), Some("Succeeded" | "Failed"))
}

/// The strategic merge patch that makes `old` into `new`. Conditions merge by type, so that those of others stay.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut patch = Map::new();
    for (key, value) in new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        let change = match key.as_str() {
            "conditions" => conditions(before, value),
            "podIPs" | "hostIPs" => Some(replaced(before, value)),
            _ => Some(value.clone()),
        };
        patch.extend(change.map(|change| (key.clone(), change)));
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The conditions that changed.
fn conditions(old: Option<&Value>, new: &Value) -> Option<Value> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let old = list(old);
    let changed: Vec<Value> = list(Some(new))
        .into_iter()
        .filter(|condition| !old.contains(condition))
        .map(|mut condition| {
            let before = old.iter().find(|c| c["type"] == condition["type"]);
            let keys = before.and_then(Value::as_object).into_iter().flat_map(Map::keys);
            let gone: Vec<String> = keys.filter(|key| condition.get(*key).is_none()).cloned().collect();
            gone.into_iter().for_each(|key| condition[key] = Value::Null);
            condition
        })
        .collect();
    (!changed.is_empty()).then_some(Value::Array(changed))
}

/// A list that merges by key, but is meant as a whole.
fn replaced(old: Option<&Value>, new: &Value) -> Value {
    let mut list = new.as_array().cloned().unwrap_or_default();
    if old.and_then(Value::as_array).is_some_and(|old| !old.is_empty()) {
        list.push(json!({"$patch": "replace"}));
    }
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::server::ApiServer;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn a_status_for_the_pod_before_is_refused_for_good() {
        let server = ApiServer::builder(Arc::new(MemoryStore::new())).start().await.unwrap();
        let pods = Client::new(server).api::<Pod>("default");
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        pods.create(&serde_json::from_value(pod).unwrap()).await.unwrap();
        let patch = json!({"metadata": {"uid": "before"}, "status": {"phase": "Running"}});
        let error = pods.patch_status("p", PatchType::StrategicMerge, &patch).await.unwrap_err();
        assert!(of_another(&error), "{error:?}");
        let odd = json!({"metadata": {"labels": {"a": "not a label"}}});
        let error = pods.patch("p", PatchType::Merge, &odd).await.unwrap_err();
        assert!(!of_another(&error), "{error:?}");
    }

    #[test]
    fn what_still_holds_holds_since_it_was_written() {
        let status = |ready: &str, at: &str| {
            json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": at}, {"type": "New", "status": "True"}]})
        };
        let written = status("True", "00:00:49Z");
        // Worked out from a record that is older than what was written.
        assert_eq!(difference(&written, &steady(&written, status("True", "00:00:48Z"))), None);
        assert_eq!(steady(&written, status("False", "00:00:48Z")), status("False", "00:00:48Z"));
        assert_eq!(steady(&json!({}), status("True", "00:00:48Z")), status("True", "00:00:48Z"));
    }

    #[test]
    fn only_changes_are_written() {
        let old = json!({"phase": "Pending", "reason": "x", "podIP": "1.1.1.1", "podIPs": [{"ip": "1.1.1.1"}],
            "conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "False", "reason": "r"}]});
        assert_eq!(difference(&old, &old), None);
        let new = json!({"phase": "Running", "podIP": "1.1.1.1", "podIPs": [{"ip": "2.2.2.2"}],
            "conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]});
        let want = json!({"phase": "Running", "reason": null, "podIPs": [{"ip": "2.2.2.2"}, {"$patch": "replace"}],
            "conditions": [{"type": "B", "status": "True", "reason": null}]});
        assert_eq!(difference(&old, &new), Some(want));
    }
}
