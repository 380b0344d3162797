//! Clients that change things as people and their tools do.

use super::components::Component;
use super::world::World;
use crate::api::{Gvr, Object, Target};
use crate::client::{
    DeleteOptions, DeletePreconditions, PatchType, Payload, Propagation, SharedTransport, WriteOptions,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const DEPLOYMENTS: Gvr = Gvr::new("apps", "v1", "deployments");
const PODS: Gvr = Gvr::new("", "v1", "pods");
const SERVICES: Gvr = Gvr::new("", "v1", "services");
const MAPS: Gvr = Gvr::new("", "v1", "configmaps");

struct Hands {
    world: Arc<World>,
    api: SharedTransport,
    /// The version of a ConfigMap that this client saw last.
    seen: Option<Arc<Object>>,
    writes: u64,
}

/// Changes things until the time of faults is over.
pub(super) async fn play(world: Arc<World>, index: usize) {
    let component = Component::new(format!("client-{index}"), index);
    let (client, _alive) = component.wire(&world);
    let api = client.transport().clone();
    let mut hands = Hands { world: world.clone(), api, seen: None, writes: index as u64 * 1_000_000 };
    while world.elapsed() < world.plan.faults {
        tokio::time::sleep(Duration::from_millis(50 + world.below(1_500))).await;
        match world.below(10) {
            0..3 => hands.deployment().await,
            3 => hands.service().await,
            4 => hands.pod().await,
            _ => hands.map().await,
        }
    }
}

fn at(gvr: Gvr, name: &str) -> Target {
    Target::object(gvr, "default", name)
}

impl Hands {
    async fn create(&self, gvr: Gvr, body: &Value) {
        let target = Target::in_namespace(gvr, "default");
        let body = Payload::Json(body.to_string().into());
        // Whether it went well is in the history; a client that is refused does something else.
        let _ = self.api.create(&target, body, &WriteOptions::default()).await;
    }

    async fn patch(&self, target: &Target, body: &Value) {
        let body = Payload::Json(body.to_string().into());
        let _ = self.api.patch(target, PatchType::StrategicMerge, body, &WriteOptions::default()).await;
    }

    async fn delete(&self, target: &Target, options: DeleteOptions) {
        let _ = self.api.delete(target, &options).await;
    }

    async fn deployment(&self) {
        let name = format!("d{}", self.world.below(3));
        let (replicas, image) = (1 + self.world.below(4), format!("app:{}", self.world.below(3)));
        let target = at(DEPLOYMENTS, &name);
        let template = json!({"metadata": {"labels": {"app": name}}, "spec": {
            "terminationGracePeriodSeconds": self.world.below(5),
            "containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": "100m"}}}]}});
        match self.world.below(8) {
            0..4 => {
                let spec =
                    json!({"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template});
                self.create(DEPLOYMENTS, &json!({"metadata": {"name": name}, "spec": spec})).await;
            }
            4 | 5 => self.patch(&target, &json!({"spec": {"replicas": replicas}})).await,
            6 => {
                let container = json!([{"name": "c", "image": image}]);
                self.patch(&target, &json!({"spec": {"template": {"spec": {"containers": container}}}})).await;
            }
            _ => {
                let foreground = self.world.below(2) == 0;
                let propagation = if foreground { Propagation::Foreground } else { Propagation::Background };
                self.delete(&target, DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() })
                    .await;
            }
        }
    }

    async fn service(&self) {
        let name = format!("s{}", self.world.below(8));
        if self.world.below(3) == 0 {
            return self.delete(&at(SERVICES, &name), DeleteOptions::default()).await;
        }
        let kind = if self.world.below(2) == 0 { "ClusterIP" } else { "NodePort" };
        let selector = json!({"app": format!("d{}", self.world.below(3))});
        let spec = json!({"type": kind, "selector": selector, "ports": [{"port": 80}]});
        self.create(SERVICES, &json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    async fn pod(&self) {
        let name = format!("p{}", self.world.below(3));
        if self.world.below(3) == 0 {
            return self.delete(&at(PODS, &name), DeleteOptions::default()).await;
        }
        let spec = json!({"terminationGracePeriodSeconds": 1 + self.world.below(4),
            "containers": [{"name": "c", "image": "alone:1"}]});
        self.create(PODS, &json!({"metadata": {"name": name, "labels": {"app": "alone"}}, "spec": spec})).await;
    }

    /// Everything one can do with a ConfigMap.
    async fn map(&mut self) {
        self.writes += 1;
        let name = format!("m{}", self.world.below(2));
        let (target, write, value) = (at(MAPS, &name), WriteOptions::default(), self.writes.to_string());
        let payload = |body: &Value| Payload::Json(body.to_string().into());
        let collection = Target::in_namespace(MAPS, "default");
        let mut body = json!({"metadata": {"name": name}, "data": {"v": value}});
        let answer = match self.world.below(10) {
            0..3 => self.api.get(&target).await,
            3 | 4 => self.api.create(&collection, payload(&body), &write).await.map(|w| w.object),
            5 | 6 => {
                if let Some(seen) = self.seen.take().filter(|seen| seen.meta.name == name) {
                    body["metadata"]["resourceVersion"] = seen.meta.resource_version.clone().into();
                }
                self.api.update(&target, payload(&body), &write).await.map(|w| w.object)
            }
            7 | 8 => {
                let patch = payload(&json!({"data": {format!("k{}", self.world.below(2)): value}}));
                self.api.patch(&target, PatchType::Merge, patch, &write).await.map(|w| w.object)
            }
            _ => {
                let uid = self.seen.take().filter(|seen| seen.meta.name == name).map(|seen| seen.meta.uid.clone());
                let preconditions = DeletePreconditions { uid, resource_version: None };
                let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
                self.api.delete(&target, &options).await.map(|deleted| deleted.object().clone())
            }
        };
        self.seen = answer.ok().or(self.seen.take());
    }
}
