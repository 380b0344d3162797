//! What a node tells the cluster of canaries: how often their backends were asked, and how they answered.

use super::Gateway;
use k8s_openapi::api::core::v1::Node;
use minik8s_core::client::PatchType;
use minik8s_core::controllers::canary::{Phase, canary_of};
use minik8s_core::node::CompanionContext;
use minik8s_core::routing::{CanaryTally, Key, TALLIES_ANNOTATION, Tallies, Tally, World};
use serde_json::json;
use std::collections::BTreeMap;

/// The routes with a canary that is under way, and what was said of them.
#[derive(Default)]
pub(super) struct Canaries {
    routes: BTreeMap<Key, Since>,
    said: Option<Tallies>,
}

/// A canary, and what had been counted before it.
struct Since {
    id: String,
    before: BTreeMap<String, Tally>,
}

impl Canaries {
    /// Looks for routes with a canary, of which nothing counts that came before it.
    pub(super) fn follow(&mut self, world: &World, gateway: &Gateway) {
        let mut before = std::mem::take(&mut self.routes);
        for route in &world.http_routes {
            let canary = canary_of(route).filter(|c| c.phase == Phase::Progressing && !c.id.is_empty());
            let Some(canary) = canary else { continue };
            let meta = &route.metadata;
            let key = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
            let since = match before.remove(&key).filter(|since| since.id == canary.id) {
                Some(since) => since,
                None => Since { id: canary.id, before: gateway.tally(&key) },
            };
            self.routes.insert(key, since);
        }
    }

    /// There is something to tell, or to take back.
    pub(super) fn any(&self) -> bool {
        !self.routes.is_empty() || self.said.as_ref().is_some_and(|said| !said.is_empty())
    }

    /// What was counted of each canary since it began.
    fn tallies(&self, gateway: &Gateway) -> Tallies {
        let of = |(key, since): (&Key, &Since)| {
            let services = gateway.tally(key).into_iter().map(|(service, now)| {
                let before = since.before.get(&service).filter(|before| before.requests <= now.requests);
                let tally = before.map_or_else(|| now.clone(), |before| now.less(before));
                (service, tally)
            });
            (format!("{}/{}", key.0, key.1), CanaryTally { id: since.id.clone(), services: services.collect() })
        };
        self.routes.iter().map(of).collect()
    }

    /// Tells what was counted, where that has changed.
    pub(super) async fn say(&mut self, ctx: &CompanionContext, gateway: &Gateway) {
        let tallies = self.tallies(gateway);
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
