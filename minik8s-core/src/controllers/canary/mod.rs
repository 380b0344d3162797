//! Shifts the share of a canary step by step, and takes it back where it fails or is slow. What is wanted and how far it
//! is stands in an annotation of the `HTTPRoute`; what became of requests, nodes say in one of theirs.

mod decide;

pub use decide::{Canary, Phase, Step, next};

use super::{Controller, ControllerContext};
use crate::api::ApiResult;
use crate::api::gateway::{BackendRef, HttpRoute};
use crate::client::{EventType, Informer, PatchType, key_of, reference_of};
use crate::routing::{CANARY_ANNOTATION, TALLIES_ANNOTATION, Tallies, Tally};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Wait after a write that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Moves canaries.
pub struct CanaryController;

#[async_trait]
impl Controller for CanaryController {
    fn name(&self) -> &str {
        "canary-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (routes, nodes) = (ctx.informers.of::<HttpRoute>(), ctx.informers.of::<Node>());
        let mut changes = (routes.subscribe(), nodes.subscribe());
        if !(routes.synced().await && nodes.synced().await) {
            return;
        }
        loop {
            let mut pause = Duration::MAX;
            let mut any = false;
            for route in routes.list() {
                if let Some(canary) = canary_of(&route).filter(|canary| canary.phase == Phase::Progressing) {
                    any = true;
                    pause = pause.min(advance(&ctx, &route, &canary, &nodes).await);
                }
            }
            let goes_on = tokio::select! {
                biased;
                () = ctx.stop.cancelled() => false,
                change = changes.0.next() => change.is_some(),
                // What nodes say concerns nobody while there is no canary.
                change = changes.1.next(), if any => change.is_some(),
                () = tokio::time::sleep(pause), if any => true,
            };
            if !goes_on {
                return;
            }
            while changes.0.try_next().is_some() {}
            while changes.1.try_next().is_some() {}
        }
    }
}

/// What somebody wants of a route's canary.
pub fn canary_of(route: &HttpRoute) -> Option<Canary> {
    serde_json::from_str(route.metadata.annotations.as_ref()?.get(CANARY_ANNOTATION)?).ok()
}

/// The canary of a rule: the second of two backends.
pub fn second(backends: &[BackendRef]) -> Option<&BackendRef> {
    if let [_, canary] = backends { Some(canary) } else { None }
}

/// Does what is next, and says after how long to look again.
async fn advance(ctx: &ControllerContext, route: &HttpRoute, canary: &Canary, nodes: &Informer<Node>) -> Duration {
    let counted = counted(route, &nodes.list());
    match next(canary, &counted, ctx.clock.now().as_second()) {
        Step::Wait(seconds) => Duration::from_secs(seconds),
        Step::Write(canary) => match write(ctx, route, &canary).await {
            Ok(()) => Duration::from_secs(canary.interval_seconds.max(1)),
            Err(error) => {
                tracing::debug!(%error, "cannot move a canary");
                AGAIN
            }
        },
    }
}

/// What each node has counted of the canaries of a route.
fn counted(route: &HttpRoute, nodes: &[Arc<Node>]) -> Vec<(String, Tally)> {
    let home = route.metadata.namespace.as_deref().unwrap_or_default();
    let canaries: Vec<String> = route
        .spec
        .rules
        .iter()
        .filter_map(|rule| second(&rule.backend_refs))
        .map(|backend| format!("{}/{}", backend.namespace.as_deref().unwrap_or(home), backend.name))
        .collect();
    let of_node = |node: &Arc<Node>| {
        let said = node.metadata.annotations.as_ref()?.get(TALLIES_ANNOTATION)?;
        let tallies: Tallies = serde_json::from_str(said).ok()?;
        let mut sum = Tally::default();
        let of_route = tallies.get(&key_of(route))?;
        of_route.iter().filter(|(service, _)| canaries.contains(service)).for_each(|(_, tally)| sum.add(tally));
        Some((node.metadata.name.clone()?, sum))
    };
    nodes.iter().filter_map(of_node).collect()
}

/// Writes weights and annotation in one go, at the version that was looked at.
async fn write(ctx: &ControllerContext, route: &HttpRoute, canary: &Canary) -> ApiResult<()> {
    let (namespace, name) = (route.metadata.namespace.as_deref(), route.metadata.name.as_deref());
    let annotation = serde_json::to_string(canary).unwrap_or_default();
    let mut patch = vec![
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": route.metadata.resource_version}),
        json!({"op": "add", "path": "/metadata/annotations/minik8s.io~1canary", "value": annotation}),
    ];
    for (index, rule) in route.spec.rules.iter().enumerate() {
        if second(&rule.backend_refs).is_none() {
            continue;
        }
        for (place, weight) in [(0, 100 - canary.percent.min(100)), (1, canary.percent.min(100))] {
            let path = format!("/spec/rules/{index}/backendRefs/{place}/weight");
            patch.push(json!({"op": "add", "path": path, "value": weight}));
        }
    }
    let api = ctx.client.api::<HttpRoute>(namespace.unwrap_or_default());
    api.patch(name.unwrap_or_default(), PatchType::Json, &Value::Array(patch)).await?;
    let about = reference_of(route);
    match canary.phase {
        Phase::Progressing => {
            let note = format!("The canary gets {} %", canary.percent);
            ctx.events.event(&about, EventType::Normal, "CanaryProgressing", note);
        }
        Phase::Completed => {
            ctx.events.event(&about, EventType::Normal, "CanaryCompleted", format!("The canary {}", canary.message));
        }
        Phase::RolledBack => {
            ctx.events.event(
                &about,
                EventType::Warning,
                "CanaryRolledBack",
                format!("The canary was {}", canary.message),
            );
        }
    }
    Ok(())
}
