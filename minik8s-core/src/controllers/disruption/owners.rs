//! How many pods the owners of some pods want: by the `scale` of whatever manages them in the end, of any kind.

use super::decide::Expected;
use crate::api::{ApiResult, Gvr, Object, Target, api_version};
use crate::client::Client;
use crate::controllers::{KindDirectory, controller_of};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A pod's owner may be owned itself, but not by endlessly many.
const DEEPEST: usize = 8;

pub(super) struct Owners {
    pub(super) client: Client,
    pub(super) kinds: Arc<dyn KindDirectory>,
}

impl Owners {
    /// The sum over all owners; pods without one do not count.
    pub(super) async fn wanted(&self, pods: &[Arc<Pod>]) -> ApiResult<Expected> {
        let mut direct: BTreeMap<&str, (&OwnerReference, &Pod)> = BTreeMap::new();
        for pod in pods {
            if let Some(owner) = controller_of(&pod.metadata) {
                direct.entry(owner.uid.as_str()).or_insert((owner, pod));
            }
        }
        let mut scales: BTreeMap<String, i64> = BTreeMap::new();
        for (owner, pod) in direct.into_values() {
            match self.scale_above(owner, pod.metadata.namespace.as_deref().unwrap_or_default()).await? {
                Some((uid, replicas)) => drop(scales.insert(uid, replicas)),
                None => {
                    let pod = pod.metadata.name.as_deref().unwrap_or_default();
                    let why = format!("{} \"{}\", which owns pod \"{pod}\", has no scale", owner.kind, owner.name);
                    return Ok(Expected::Unknown(why));
                }
            }
        }
        Ok(Expected::Pods(i32::try_from(scales.into_values().sum::<i64>()).unwrap_or(i32::MAX)))
    }

    /// The uppermost owner that has a scale, and how many replicas it wants.
    async fn scale_above(&self, owner: &OwnerReference, namespace: &str) -> ApiResult<Option<(String, i64)>> {
        let (mut found, mut next) = (None, Some(owner.clone()));
        for _ in 0..DEEPEST {
            let Some(owner) = next.take() else { break };
            let Some(target) = self.place(&owner, namespace) else { break };
            let Some(object) = self.get(&target).await?.filter(|o| o.meta.uid == owner.uid) else { break };
            if let Some(scale) = self.get(&target.clone().sub("scale")).await? {
                let replicas = scale.value()?.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or_default();
                found = Some((owner.uid, replicas));
            }
            next = manager(&object.value()?);
        }
        Ok(found)
    }

    fn place(&self, owner: &OwnerReference, namespace: &str) -> Option<Target> {
        let kinds = self.kinds.kinds();
        let of = |gvr: &Gvr| api_version(&gvr.group, &gvr.version) == owner.api_version;
        let kind = kinds.into_iter().find(|kind| kind.kind == owner.kind && of(&kind.gvr))?;
        let namespace = if kind.namespaced { namespace } else { "" };
        Some(Target::object(kind.gvr, namespace, &owner.name))
    }

    async fn get(&self, target: &Target) -> ApiResult<Option<Arc<Object>>> {
        match self.client.transport().get(target).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn manager(object: &Value) -> Option<OwnerReference> {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array)?;
    let manager = owners.iter().find(|owner| owner["controller"] == true)?;
    serde_json::from_value(manager.clone()).ok()
}
