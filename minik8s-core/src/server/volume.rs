//! Files in volumes of pods: which node has them, and whether they are anybody's to ask for.

use super::ApiServer;
use crate::api::{ApiError, ApiResult, Gvr, Target};
use crate::client::Transport;
use crate::node::{NodeAccess, PodRef, VolumeRef};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

const PODS: Gvr = Gvr::new("", "v1", "pods");

impl ApiServer {
    /// The node that has a volume of a pod; `None` before the pod is on one. Only what containers write is shown: other
    /// volumes are copies of objects, or the node's own.
    pub(super) async fn volume(&self, pod: &Target, name: &str) -> ApiResult<Option<(Arc<dyn NodeAccess>, VolumeRef)>> {
        if pod.gvr != PODS {
            return Err(ApiError::bad_request(format!("{} have no volumes", pod.gvr.resource)));
        }
        let object = self.get(&Target { subresource: None, ..pod.clone() }).await?;
        let spec = object.decode::<Pod>()?.spec.unwrap_or_default();
        let volume = spec.volumes.into_iter().flatten().find(|volume| volume.name == name);
        let meta = &object.meta;
        if volume.is_none_or(|volume| volume.empty_dir.is_none()) {
            return Err(ApiError::bad_request(format!("pod {} has no emptyDir volume {name:?}", meta.name)));
        }
        let Some(node) = spec.node_name.filter(|node| !node.is_empty()) else { return Ok(None) };
        let pod = PodRef { namespace: meta.namespace.clone(), pod: meta.name.clone(), uid: meta.uid.clone() };
        Ok(Some((self.nodes().find(&node)?, VolumeRef { pod, volume: name.to_owned() })))
    }
}
