//! The node's Lease: the word, again and again, that it lives.

use super::context::Context;
use crate::api::{ApiError, ApiResult, NODE_LEASES};
use crate::client::PatchType;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node};
use serde_json::json;
use std::sync::Arc;

/// Renews the node's lease. Ends with the agent.
pub(crate) async fn keep_lease(context: Arc<Context>) {
    let mut registered = context.registered.subscribe();
    // The lease is the node's: without a record it would be collected.
    if registered.wait_for(|done| *done).await.is_err() {
        return;
    }
    let mut failures = 0;
    loop {
        let wait = match renew(&context).await {
            Ok(()) => {
                failures = 0;
                context.config.lease_period
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(node = context.config.name, %error, "cannot renew the node's lease");
                context.retry.delay(failures).min(context.config.lease_period)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn renew(context: &Context) -> ApiResult<()> {
    let leases = context.client.api::<Lease>(NODE_LEASES);
    let name = &context.config.name;
    let now = context.clock.now();
    let seconds = context.config.lease_duration.as_secs();
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": seconds, "renewTime": format!("{now:.6}")});
    match leases.patch(name, PatchType::Merge, &json!({ "spec": spec })).await {
        Err(e) if e.is_not_found() => {}
        result => return result.map(drop),
    }
    let owner = context.client.all::<Node>().get(name).await?;
    let lease = json!({"metadata": {"name": name, "namespace": NODE_LEASES, "ownerReferences": [
        {"apiVersion": "v1", "kind": "Node", "name": name, "uid": owner.metadata.uid}]}, "spec": spec});
    let lease: Lease = serde_json::from_value(lease).map_err(|e| ApiError::internal(e.to_string()))?;
    match leases.create(&lease).await {
        Err(e) if e.is_not_found() => {
            let namespace = json!({"metadata": {"name": NODE_LEASES}});
            let namespace: Namespace = serde_json::from_value(namespace).unwrap_or_default();
            match context.client.all::<Namespace>().create(&namespace).await {
                Err(e) if !e.is_already_exists() => return Err(e),
                _ => {}
            }
            leases.create(&lease).await.map(drop)
        }
        result => result.map(drop),
    }
}
