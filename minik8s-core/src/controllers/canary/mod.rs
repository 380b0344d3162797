//! Shifts the share of a canary step by step, and takes it back where it fails or is slow. What is wanted and how far it
//! is stands in an annotation of the `HTTPRoute`; what became of requests, nodes say in one of theirs. Where it is the
//! canary of a Deployment, its pods come and go here as well.

mod decide;
mod deployments;

pub use decide::{Canary, Pair, Phase, Step, next};

use super::{Controller, ControllerContext};
use crate::api::ApiResult;
use crate::api::gateway::{BackendRef, HttpRoute};
use crate::client::{EventType, Informer, PatchType, key_of, reference_of};
use crate::routing::{CANARY_ANNOTATION, TALLIES_ANNOTATION, Tallies, Tally};
use async_trait::async_trait;
use deployments::{Both, Need};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Wait after a write that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How long gateways have to hear that nobody is led to a canary any more, before it goes; in seconds.
const SETTLE: i64 = 3;

/// Moves canaries.
pub struct CanaryController;

#[async_trait]
impl Controller for CanaryController {
    fn name(&self) -> &str {
        "canary-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let known = Known {
            routes: ctx.informers.of::<HttpRoute>(),
            nodes: ctx.informers.of::<Node>(),
            deployments: ctx.informers.of::<Deployment>(),
        };
        let mut routes = known.routes.subscribe();
        let (mut nodes, mut deployments) = (known.nodes.subscribe(), known.deployments.subscribe());
        if !(known.routes.synced().await && known.nodes.synced().await && known.deployments.synced().await) {
            return;
        }
        loop {
            let mut pause = Duration::MAX;
            let mut any = false;
            for route in known.routes.list() {
                if let Some(canary) = canary_of(&route).filter(Canary::goes_on) {
                    any = true;
                    pause = pause.min(advance(&ctx, &route, &canary, &known).await);
                }
            }
            let goes_on = tokio::select! {
                biased;
                () = ctx.stop.cancelled() => false,
                change = routes.next() => change.is_some(),
                // What nodes and Deployments say concerns nobody while there is no canary.
                change = nodes.next(), if any => change.is_some(),
                change = deployments.next(), if any => change.is_some(),
                () = tokio::time::sleep(pause), if any => true,
            };
            if !goes_on {
                return;
            }
            while routes.try_next().is_some() {}
            while nodes.try_next().is_some() {}
            while deployments.try_next().is_some() {}
        }
    }
}

/// What the controller looks at.
struct Known {
    routes: Informer<HttpRoute>,
    nodes: Informer<Node>,
    deployments: Informer<Deployment>,
}

/// What somebody wants of a route's canary.
pub fn canary_of(route: &HttpRoute) -> Option<Canary> {
    serde_json::from_str(route.metadata.annotations.as_ref()?.get(CANARY_ANNOTATION)?).ok()
}

/// The canary of a rule: the second of two backends, and no other's than the one that was made for it.
fn second<'a>(canary: &Canary, backends: &'a [BackendRef]) -> Option<&'a BackendRef> {
    let [_, second] = backends else { return None };
    canary.deployments.as_ref().is_none_or(|pair| pair.canary == second.name).then_some(second)
}

/// Does what is next, and says after how long to look again.
async fn advance(ctx: &ControllerContext, route: &HttpRoute, canary: &Canary, known: &Known) -> Duration {
    let done = match (&canary.deployments, canary.phase) {
        (Some(pair), _) if canary.is_over() => wind_up(ctx, route, canary, &pair.canary).await,
        (Some(pair), Phase::Promoting) => {
            let namespace = route.metadata.namespace.as_deref().unwrap_or_default();
            let both = Both::of(pair, namespace, &known.deployments);
            promote(ctx, route, canary, &both).await
        }
        (_, Phase::Progressing) => grow(ctx, route, canary, known).await,
        _ => Ok(Duration::MAX),
    };
    done.unwrap_or_else(|error| {
        tracing::debug!(%error, route = key_of(route), "cannot move a canary");
        AGAIN
    })
}

/// The next share, or the end.
async fn grow(ctx: &ControllerContext, route: &HttpRoute, canary: &Canary, known: &Known) -> ApiResult<Duration> {
    let led = route.spec.rules.iter().any(|rule| second(canary, &rule.backend_refs).is_some());
    let counted = counted(route, canary, &known.nodes.list());
    let step = match next(canary, &counted, ctx.clock.now().as_second()) {
        Step::Write(_) | Step::Wait(_) if !led && canary.deployments.is_some() => {
            Step::Write(canary.taken_back("the route does not lead to it any more"))
        }
        step => step,
    };
    let mut canary = match step {
        Step::Wait(seconds) => return Ok(Duration::from_secs(seconds)),
        Step::Write(canary) => canary,
    };
    if canary.id.is_empty() {
        canary.id = route.metadata.resource_version.clone().unwrap_or_default();
    }
    let namespace = route.metadata.namespace.as_deref().unwrap_or_default();
    if let (Some(pair), Phase::Progressing) = (&canary.deployments, canary.phase) {
        match Both::of(pair, namespace, &known.deployments).need(pair, canary.percent) {
            Need::Met => {}
            Need::Pods => return Ok(Duration::MAX),
            Need::Replicas(count) => {
                deployments::scale(ctx, namespace, pair, count).await?;
                return Ok(Duration::MAX);
            }
            Need::Never(why) => canary = canary.taken_back(&why),
        }
    }
    announce(ctx, route, canary).await
}

/// The template goes to the Deployment that runs; when that is everywhere, the canary is over.
async fn promote(ctx: &ControllerContext, route: &HttpRoute, canary: &Canary, both: &Both) -> ApiResult<Duration> {
    let namespace = route.metadata.namespace.as_deref().unwrap_or_default();
    if both.canary.is_none() {
        return announce(ctx, route, canary.taken_back("its Deployment has gone")).await;
    }
    match deployments::promote(ctx, namespace, both).await? {
        true => announce(ctx, route, Canary { phase: Phase::Completed, ..canary.clone() }).await,
        false => Ok(Duration::MAX),
    }
}

/// Takes away what was made for a canary, when nobody is led there any more.
async fn wind_up(ctx: &ControllerContext, route: &HttpRoute, canary: &Canary, made: &str) -> ApiResult<Duration> {
    let now = ctx.clock.now().as_second();
    if route.spec.rules.iter().any(|rule| second(canary, &rule.backend_refs).is_some()) {
        write(ctx, route, &Canary { since: now, ..canary.clone() }).await?;
        return Ok(AGAIN);
    }
    if now < canary.since.saturating_add(SETTLE) {
        return Ok(AGAIN);
    }
    deployments::clear(ctx, route.metadata.namespace.as_deref().unwrap_or_default(), made).await?;
    write(ctx, route, &Canary { deployments: None, ..canary.clone() }).await?;
    Ok(AGAIN)
}

/// What each node has counted of a canary.
fn counted(route: &HttpRoute, canary: &Canary, nodes: &[Arc<Node>]) -> Vec<(String, Tally)> {
    let home = route.metadata.namespace.as_deref().unwrap_or_default();
    let canaries: Vec<String> = route
        .spec
        .rules
        .iter()
        .filter_map(|rule| second(canary, &rule.backend_refs))
        .map(|backend| format!("{}/{}", backend.namespace.as_deref().unwrap_or(home), backend.name))
        .collect();
    let of_node = |node: &Arc<Node>| {
        let said = node.metadata.annotations.as_ref()?.get(TALLIES_ANNOTATION)?;
        let tallies: Tallies = serde_json::from_str(said).ok()?;
        let mut sum = Tally::default();
        // What is said of a canary before this one is none of its own.
        let of_route = tallies.get(&key_of(route)).filter(|tally| !canary.id.is_empty() && tally.id == canary.id)?;
        of_route
            .services
            .iter()
            .filter(|(service, _)| canaries.contains(service))
            .for_each(|(_, tally)| sum.add(tally));
        Some((node.metadata.name.clone()?, sum))
    };
    nodes.iter().filter_map(of_node).collect()
}

/// Writes what is next, and says so.
async fn announce(ctx: &ControllerContext, route: &HttpRoute, canary: Canary) -> ApiResult<Duration> {
    let since = if canary.is_over() { ctx.clock.now().as_second() } else { canary.since };
    write(ctx, route, &Canary { since, ..canary.clone() }).await?;
    let (kind, reason, note) = match canary.phase {
        Phase::Progressing => (EventType::Normal, "CanaryProgressing", format!("The canary gets {} %", canary.percent)),
        Phase::Promoting => {
            let to = canary.deployments.as_ref().map(|pair| pair.stable.as_str()).unwrap_or_default();
            (EventType::Normal, "CanaryPromoting", format!("The canary {}; its template goes to {to}", canary.message))
        }
        Phase::Completed => (EventType::Normal, "CanaryCompleted", format!("The canary {}", canary.message)),
        Phase::RolledBack => (EventType::Warning, "CanaryRolledBack", format!("The canary was {}", canary.message)),
    };
    ctx.events.event(&reference_of(route), kind, reason, note);
    Ok(Duration::from_secs(canary.interval_seconds.max(1)))
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
        if second(canary, &rule.backend_refs).is_none() {
            continue;
        }
        let backends = format!("/spec/rules/{index}/backendRefs");
        let weights = if canary.is_over() {
            patch.push(json!({"op": "remove", "path": format!("{backends}/1")}));
            vec![1]
        } else {
            let share = canary.percent.min(100);
            vec![100 - share, share]
        };
        for (place, weight) in weights.into_iter().enumerate() {
            patch.push(json!({"op": "add", "path": format!("{backends}/{place}/weight"), "value": weight}));
        }
    }
    let api = ctx.client.api::<HttpRoute>(namespace.unwrap_or_default());
    api.patch(name.unwrap_or_default(), PatchType::Json, &Value::Array(patch)).await?;
    Ok(())
}
