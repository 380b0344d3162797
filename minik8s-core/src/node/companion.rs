//! What runs beside the pods of a node for as long as its agent does, such as a gateway: the door for crates that know
//! more of the machine than the agent does.

use super::context::Context;
use super::discard::NodeImages;
use crate::client::{Client, Informers};
use crate::clock::SharedClock;
use crate::network::ServiceTable;
use async_trait::async_trait;
use prometheus_client::registry::Registry;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Something that runs beside the pods of a node. The agent starts it once the node's network works.
#[async_trait]
pub trait Companion: Send + Sync + 'static {
    /// Its name, in logs.
    fn name(&self) -> &str;

    /// Adds what it counts to the node's page of metrics.
    fn register(&self, _page: &mut Registry) {}

    /// Runs until `ctx.stop` is cancelled, and then ends in its own time, which it bounds: the agent waits for it.
    async fn run(self: Arc<Self>, ctx: CompanionContext);
}

/// What a companion works with.
#[derive(Clone)]
pub struct CompanionContext {
    /// Name of the node.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The API, as the node.
    pub client: Client,
    /// The agent's informers.
    pub informers: Informers,
    /// The images of the node.
    pub images: NodeImages,
    /// The time of day.
    pub clock: SharedClock,
    /// All Services with their endpoints; `None` until they are known.
    pub services: watch::Receiver<Option<Arc<ServiceTable>>>,
    /// True once the node's record exists.
    pub registered: watch::Receiver<bool>,
    /// Cancelled when it must end.
    pub stop: CancellationToken,
}

/// Starts them all.
pub(super) fn start(
    companions: &[Arc<dyn Companion>],
    context: &Arc<Context>,
    informers: &Informers,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let ctx = CompanionContext {
        node: context.config.name.clone(),
        addresses: context.config.addresses.clone(),
        client: context.client.clone(),
        informers: informers.clone(),
        images: NodeImages::new(context.clone()),
        clock: context.clock.clone(),
        services: context.table.subscribe(),
        registered: context.registered.subscribe(),
        stop: stop.clone(),
    };
    companions.iter().map(|companion| companion.clone().run(ctx.clone())).collect()
}
