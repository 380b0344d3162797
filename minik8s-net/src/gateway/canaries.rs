//! What a node tells the cluster of canaries: how often their backends were asked, and how they answered.

use super::Gateway;
use k8s_openapi::api::core::v1::Node;
use minik8s_core::client::PatchType;
use minik8s_core::controllers::canary::{Phase, canary_of};
use minik8s_core::node::CompanionContext;
use minik8s_core::routing::{Key, TALLIES_ANNOTATION, Tallies, World};
use serde_json::json;
use std::collections::BTreeSet;

/// The routes with a canary that is under way, and what was said of them.
#[derive(Default)]
pub(super) struct Canaries {
    routes: BTreeSet<Key>,
    said: Option<Tallies>,
}

impl Canaries {
    /// Looks for routes with a canary.
    pub(super) fn follow(&mut self, world: &World) {
        let under_way = world
            .http_routes
            .iter()
            .filter(|route| canary_of(route).is_some_and(|canary| canary.phase == Phase::Progressing));
        let key = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
        };
        self.routes = under_way.map(|route| key(&route.metadata)).collect();
    }

    /// There is something to tell, or to take back.
    pub(super) fn any(&self) -> bool {
        !self.routes.is_empty() || self.said.as_ref().is_some_and(|said| !said.is_empty())
    }

    /// Tells what was counted, where that has changed.
    pub(super) async fn say(&mut self, ctx: &CompanionContext, gateway: &Gateway) {
        let tallies = gateway.tallies(&self.routes);
        if self.said.as_ref() == Some(&tallies) {
            return;
        }
        let text = (!tallies.is_empty()).then(|| serde_json::to_string(&tallies).unwrap_or_default());
        let patch = json!({"metadata": {"annotations": {TALLIES_ANNOTATION: text}}});
        match ctx.client.all::<Node>().patch(&ctx.node, PatchType::Merge, &patch).await {
            Ok(_) => self.said = Some(tallies),
            Err(error) => tracing::debug!(%error, "cannot tell the cluster what was counted of canaries"),
        }
    }
}
