//! The range of addresses of this node's pods, where it is somebody else who decides.

use super::context::Context;
use super::register::register;
use crate::client::Informer;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use std::time::Duration;

/// Longer than a controller takes that is there, and shorter than the node's first word takes.
const SOON: Duration = Duration::from_secs(1);

fn range_of(node: &Node) -> Option<IpNet> {
    node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()
}

/// Waits until the node's record says the range, and tells the network. The record must be there for anybody to write
/// one into it. `tell` hears what it waits for, once that takes long, and what the network says against it.
pub(crate) async fn await_range(context: &Context, record: &Informer<Node>, tell: impl Fn(String)) {
    if !context.network.capabilities().assigned {
        return;
    }
    let mut failures = 0;
    let mut registered = loop {
        match register(context).await {
            Ok(node) => break Some(node),
            Err(error) => {
                failures += 1;
                tracing::warn!(node = context.config.name, %error, "cannot register the node");
                tokio::time::sleep(context.retry.delay(failures)).await;
            }
        }
    };
    let mut changes = record.subscribe();
    loop {
        let node = record.get(&context.config.name);
        let range = registered.take().as_ref().and_then(range_of).or_else(|| node.as_deref().and_then(range_of));
        if let Some(range) = range {
            match context.network.set_range(range).await {
                Ok(()) => {
                    let _ = context.range.set(range);
                    return;
                }
                Err(error) => tell(error.to_string()),
            }
        }
        match tokio::time::timeout(SOON, changes.next()).await {
            Ok(None) => return std::future::pending().await,
            Ok(Some(_)) => {}
            Err(_) if range.is_none() => tell(crate::network::NetworkError::NoRange.to_string()),
            Err(_) => {}
        }
    }
}
