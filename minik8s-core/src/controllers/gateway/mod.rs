//! Says of Ingresses, Gateways, HTTPRoutes and Dns what became of them. The requests themselves are passed by the gateways
//! of the nodes, which make their routes of the same objects by the same function ([`translate`]).

mod certificates;
mod statuses;

pub use statuses::Places;

use super::{Controller, ControllerContext};
use crate::api::gateway::{Dns, Gateway, GatewayClass, HttpRoute};
use crate::api::{ApiError, ApiResult, PathRoute};
use crate::client::{ApiResource, Client, EventType, InformerOptions, PatchType};
use crate::routing::{Sources, World, translate};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Secret};
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::json;
use statuses::{Change, Statuses};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Changes that come this close together are looked at together.
const TOGETHER: Duration = Duration::from_millis(20);
/// Wait after a write that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps the statuses of everything that routes are made of.
pub struct GatewayController;

#[async_trait]
impl Controller for GatewayController {
    fn name(&self) -> &str {
        "gateway-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let sources = Sources::new(&ctx.informers);
        let nodes = ctx.informers.of::<Node>();
        let tls = InformerOptions { field_selector: "type=kubernetes.io/tls".into(), ..InformerOptions::default() };
        let secrets = ctx.informers.select::<Secret>(tls);
        let (mut news, mut node_news, mut secret_news) = (sources.news(), nodes.subscribe(), secrets.subscribe());
        if !(sources.synced().await && nodes.synced().await && secrets.synced().await) {
            return;
        }
        let mut said = BTreeSet::new();
        loop {
            let places = Places::of(&nodes.list());
            let certificates = Some(certificates::judge(&secrets.list()));
            let world = World { certificates, ..sources.world() };
            let failed = tell(&ctx, &world, &places, &mut said).await;
            // Most of what nodes say is no concern of ours.
            let moved = async {
                while node_news.next().await.is_some() {
                    if Places::of(&nodes.list()) != places {
                        return true;
                    }
                }
                false
            };
            let goes_on = tokio::select! {
                biased;
                () = ctx.stop.cancelled() => false,
                some = news.next() => some,
                some = secret_news.next() => some.is_some(),
                some = moved => some,
                () = tokio::time::sleep(AGAIN), if failed => true,
            };
            if !goes_on {
                return;
            }
            tokio::time::sleep(TOGETHER).await;
            news.skip();
        }
    }
}

/// What was said about whom, so that it is said once.
type Said = BTreeSet<(String, String, String)>;

/// Writes what has changed. True where some of it could not be written.
async fn tell(ctx: &ControllerContext, world: &World, places: &Places, said: &mut Said) -> bool {
    let Statuses { changes, events } = statuses::of(world, &translate(world), places, ctx.clock.now());
    let mut failed = false;
    for change in &changes {
        if let Err(error) = write(&ctx.client, change).await {
            failed |= !error.is_not_found();
            tracing::debug!(%error, kind = change.kind, name = change.name, "cannot write a status");
        }
    }
    let key = |(about, note): &(ObjectReference, String)| {
        (about.kind.clone().unwrap_or_default(), about.uid.clone().unwrap_or_default(), note.clone())
    };
    for event in events.iter().filter(|event| !said.contains(&key(event))) {
        ctx.events.event(&event.0, EventType::Warning, "Unroutable", event.1.clone());
    }
    *said = events.iter().map(key).collect();
    failed
}

async fn write(client: &Client, change: &Change) -> ApiResult<()> {
    match change.kind {
        "Ingress" => patch::<Ingress>(client, change).await,
        "Gateway" => patch::<Gateway>(client, change).await,
        "GatewayClass" => patch::<GatewayClass>(client, change).await,
        "HTTPRoute" => patch::<HttpRoute>(client, change).await,
        "Dns" => patch::<Dns>(client, change).await,
        "PathRoute" => patch::<PathRoute>(client, change).await,
        other => Err(ApiError::internal(format!("{other} has no status of ours"))),
    }
}

async fn patch<K: ApiResource>(client: &Client, change: &Change) -> ApiResult<()> {
    let body = json!({"status": change.status});
    client.api::<K>(&change.namespace).patch_status(&change.name, PatchType::Merge, &body).await.map(drop)
}
