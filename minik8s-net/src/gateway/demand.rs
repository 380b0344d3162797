//! What a node tells the cluster of requests that may wait: who brings up endpoints follows it.

use super::Gateway;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use minik8s_core::api::{ApiResult, BackendDemand, Demand, DemandSpec};
use minik8s_core::client::PatchType;
use minik8s_core::node::CompanionContext;
use serde_json::json;
use std::time::Duration;

/// How often it is told while there is load.
const TURN: Duration = Duration::from_secs(1);
/// Who waits for endpoints, or comes after a while, is told of at once, but not more often than this.
const GAP: Duration = Duration::from_millis(50);

/// Tells what is asked until it is dropped.
pub(super) async fn tell(ctx: &CompanionContext, gateway: &Gateway) {
    let mut registered = ctx.registered.clone();
    if registered.wait_for(|done| *done).await.is_err() {
        return std::future::pending().await;
    }
    let mut turn = tokio::time::interval(TURN);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What an agent before this one told is not so any more.
    let (mut unheard, mut load) = (true, false);
    loop {
        let soon = tokio::select! {
            biased;
            () = gateway.wanted() => true,
            // Without load there is nothing to look at: who comes then is told of at once.
            _ = turn.tick(), if load || unheard => false,
        };
        let told = gateway.demand();
        load = told.is_some();
        if !load && !unheard {
            continue;
        }
        unheard = match write(ctx, told.unwrap_or_default()).await {
            Ok(()) => false,
            Err(error) => {
                tracing::debug!(%error, "cannot tell the cluster what is asked of this node's gateway");
                true
            }
        };
        if soon {
            turn.reset();
            tokio::time::sleep(GAP).await;
        }
    }
}

async fn write(ctx: &CompanionContext, backends: Vec<BackendDemand>) -> ApiResult<()> {
    let spec = DemandSpec { at: Some(MicroTime(ctx.clock.now())), backends };
    let api = ctx.client.all::<Demand>();
    match api.patch(&ctx.node, PatchType::Merge, &json!({ "spec": spec })).await {
        Err(error) if error.is_not_found() => {}
        other => return other.map(drop),
    }
    if spec.backends.is_empty() {
        return Ok(());
    }
    let mut made = Demand { spec, ..Demand::default() };
    made.metadata.name = Some(ctx.node.clone());
    api.create(&made).await.map(drop)
}
