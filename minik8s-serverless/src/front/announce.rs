//! The paths that gateways lead to the front: routes of `kube-system` that belong to the front's Service and go with it.
//! Made again whenever they are not as they should be, by every front: they all say the same.

use super::{PORT, SERVICE};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Service;
use minik8s_core::api::{ApiError, ApiResult, PathRoute};
use minik8s_core::client::{ApiResource, Change, Client, DeleteOptions, Informer, PatchType, WorkQueue};
use minik8s_core::client::{key_of, object_key};
use minik8s_core::controllers::{ControllerContext, Outcome, Reconciler, pump, run_workers};
use serde_json::{Value, json};
use std::sync::Arc;

/// Where the cluster's own things are.
pub(crate) const NAMESPACE: &str = "kube-system";
/// How requests wait while nobody takes them, and how long for an answer in all.
const QUEUE: i32 = 1000;
const PATIENCE: i64 = 15;
const TIMEOUT: i64 = 30;

/// Keeps what leads to the front.
pub(super) struct Announcer {
    client: Client,
    paths: Vec<&'static str>,
    services: Informer<Service>,
    routes: Informer<PathRoute>,
}

/// A path's route has its name.
pub(crate) fn name(path: &str) -> &str {
    path.trim_start_matches('/')
}

impl Announcer {
    pub(super) fn new(ctx: &ControllerContext, paths: Vec<&'static str>) -> Self {
        Self { client: ctx.client.clone(), paths, services: ctx.informers.of(), routes: ctx.informers.of() }
    }

    /// Keeps it until the end; routes of those of `all` that are not led here are taken away once, at the start.
    pub(super) async fn run(self, ctx: &ControllerContext, all: &[&'static str]) {
        if !(self.services.synced().await && self.routes.synced().await) {
            return;
        }
        for path in all.iter().filter(|path| !self.paths.contains(*path)) {
            if let Err(error) = self.leave(name(path)).await {
                tracing::warn!(%error, path, "gateways may still lead this path here");
            }
        }
        let queue: WorkQueue<&'static str> = ctx.queue();
        queue.add(SERVICE);
        let names = [SERVICE].into_iter().chain(self.paths.iter().map(|path| name(path)));
        let keys: Arc<[String]> = names.map(|name| object_key(NAMESPACE, name)).collect();
        follow(ctx, &queue, &self.services, &keys);
        follow(ctx, &queue, &self.routes, &keys);
        run_workers(ctx, &queue, 1, Arc::new(self)).await;
    }

    /// Takes away a route of the front's, whoever made it.
    async fn leave(&self, name: &str) -> ApiResult<()> {
        let ours = |route: Arc<PathRoute>| route.spec.backends.iter().all(|backend| backend.service == SERVICE);
        if !self.routes.get(&object_key(NAMESPACE, name)).is_some_and(ours) {
            return Ok(());
        }
        let gone = self.client.api::<PathRoute>(NAMESPACE).delete(name, &DeleteOptions::default()).await;
        gone.map(drop).or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
    }

    /// Makes a route what it should be, unless it is.
    async fn keep(&self, name: &str, want: Value) -> ApiResult<()> {
        let api = self.client.api::<PathRoute>(NAMESPACE);
        let unmade = |error: serde_json::Error| {
            ApiError::internal(format!("the route that leads to the front cannot be made: {error}"))
        };
        let Some(found) = self.routes.get(&object_key(NAMESPACE, name)) else {
            // One that is there already will be seen, and looked at then.
            return match api.create(&serde_json::from_value(want).map_err(unmade)?).await {
                Err(error) if !error.is_already_exists() => Err(error),
                _ => Ok(()),
            };
        };
        if says(&serde_json::to_value(&*found).map_err(unmade)?, &want) {
            return Ok(());
        }
        api.patch(name, PatchType::Merge, &want).await.map(drop)
    }
}

/// Looks again when one of these changes.
fn follow<K: ApiResource>(
    ctx: &ControllerContext,
    queue: &WorkQueue<&'static str>,
    informer: &Informer<K>,
    keys: &Arc<[String]>,
) {
    let (queue, keys) = (queue.clone(), keys.clone());
    pump(ctx, informer, move |change| match change {
        Change::Applied { new: object, .. } | Change::Deleted(object) if keys.contains(&key_of(&**object)) => {
            queue.add(SERVICE)
        }
        Change::Resync => queue.add(SERVICE),
        _ => {}
    });
}

/// True where an object says everything that is wanted, and perhaps more.
fn says(found: &Value, want: &Value) -> bool {
    match (found, want) {
        (Value::Object(found), Value::Object(want)) => {
            want.iter().all(|(name, want)| found.get(name).is_some_and(|found| says(found, want)))
        }
        (Value::Array(found), Value::Array(want)) => {
            found.len() == want.len() && found.iter().zip(want).all(|(found, want)| says(found, want))
        }
        _ => found == want,
    }
}

#[async_trait]
impl Reconciler for Announcer {
    type Key = &'static str;

    async fn reconcile(&self, _: &&'static str) -> ApiResult<Outcome> {
        // It is made by who serves the front; that it is there will be seen.
        let Some(service) = self.services.get(&object_key(NAMESPACE, SERVICE)) else { return Ok(Outcome::Done) };
        let owner = json!([{"apiVersion": "v1", "kind": "Service", "name": SERVICE, "uid": service.metadata.uid}]);
        for path in &self.paths {
            let metadata = json!({"name": name(path), "namespace": NAMESPACE, "ownerReferences": owner});
            let hold = json!({"queue": QUEUE, "patienceSeconds": PATIENCE, "concurrency": 0});
            let backends = json!([{"service": SERVICE, "port": PORT, "weight": 1}]);
            let spec = json!({"path": path, "backends": backends, "hold": hold, "timeoutSeconds": TIMEOUT});
            let route = json!({"metadata": metadata, "spec": spec});
            self.keep(name(path), route).await?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_may_say_more_than_is_wanted_and_nothing_else() {
        let want = json!({"spec": {"ports": [{"port": 80}], "path": "/a"}});
        let table = [
            (json!({"spec": {"ports": [{"port": 80, "name": "x"}], "path": "/a"}, "status": {}}), true),
            (json!({"spec": {"ports": [{"port": 81}], "path": "/a"}}), false),
            (json!({"spec": {"ports": [{"port": 80}, {"port": 81}], "path": "/a"}}), false),
            (json!({"spec": {"ports": [], "path": "/a"}}), false),
            (json!({"spec": {"ports": [{"port": 80}]}}), false),
            (json!({}), false),
        ];
        for (found, is) in table {
            assert_eq!(says(&found, &want), is, "{found}");
        }
    }
}
