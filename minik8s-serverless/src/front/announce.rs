//! Where the front is found: a Service of `kube-system` without an address, one endpoint, and the paths that gateways lead
//! to it. Made again whenever they are not as they should be.

use super::{PORT, SERVICE};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use minik8s_core::api::{ApiError, ApiResult, PathRoute};
use minik8s_core::client::{ApiResource, Change, Client, Informer, PatchType, WorkQueue, key_of, object_key};
use minik8s_core::controllers::{ControllerContext, Outcome, Reconciler, pump, run_workers};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

/// Where the cluster's own things are.
const NAMESPACE: &str = "kube-system";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// How requests wait while the front moves from one process to another.
const QUEUE: i32 = 1000;
const PATIENCE: i64 = 15;

/// Keeps what leads to the front.
pub(super) struct Announcer {
    client: Client,
    address: SocketAddr,
    paths: Vec<&'static str>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    routes: Informer<PathRoute>,
}

impl Announcer {
    pub(super) fn new(
        ctx: &ControllerContext,
        address: SocketAddr,
        paths: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let (services, slices, routes) = (ctx.informers.of(), ctx.informers.of(), ctx.informers.of());
        Self { client: ctx.client.clone(), address, paths: paths.into_iter().collect(), services, slices, routes }
    }

    /// Keeps it until the end.
    pub(super) async fn run(self, ctx: &ControllerContext) {
        if !(self.services.synced().await && self.slices.synced().await && self.routes.synced().await) {
            return;
        }
        let queue: WorkQueue<&'static str> = ctx.queue();
        queue.add(SERVICE);
        let name = |path: &str| path.trim_start_matches('/').to_owned();
        let names = || [SERVICE.to_owned()].into_iter().chain(self.paths.iter().map(|path| name(path)));
        let keys: Arc<[String]> = names().map(|name| object_key(NAMESPACE, &name)).collect();
        follow(ctx, &queue, &self.services, &keys);
        follow(ctx, &queue, &self.slices, &keys);
        follow(ctx, &queue, &self.routes, &keys);
        run_workers(ctx, &queue, 1, Arc::new(self)).await;
    }

    /// Makes an object what it should be, unless it is.
    async fn keep<K: ApiResource>(&self, informer: &Informer<K>, name: &str, want: Value) -> ApiResult<()> {
        let api = self.client.api::<K>(NAMESPACE);
        let unmade =
            |error: serde_json::Error| ApiError::internal(format!("what leads to the front cannot be made: {error}"));
        let Some(found) = informer.get(&object_key(NAMESPACE, name)) else {
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
        let metadata = |name: &str| json!({"name": name, "namespace": NAMESPACE});
        let ports = json!([{"name": "http", "port": PORT, "protocol": "TCP"}]);
        let service = json!({"metadata": metadata(SERVICE), "spec": {"clusterIP": "None", "ports": ports}});
        self.keep(&self.services, SERVICE, service).await?;
        let kind = if self.address.is_ipv4() { "IPv4" } else { "IPv6" };
        let slice = json!({
            "metadata": {"name": SERVICE, "namespace": NAMESPACE, "labels": {SERVICE_LABEL: SERVICE}}, "addressType": kind,
            "endpoints": [{"addresses": [self.address.ip()], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": self.address.port(), "protocol": "TCP"}]});
        self.keep(&self.slices, SERVICE, slice).await?;
        for path in &self.paths {
            let name = path.trim_start_matches('/');
            let hold = json!({"queue": QUEUE, "patienceSeconds": PATIENCE, "concurrency": 0});
            let backends = json!([{"service": SERVICE, "port": PORT, "weight": 1}]);
            let route = json!({"metadata": metadata(name), "spec": {"path": path, "backends": backends, "hold": hold}});
            self.keep(&self.routes, name, route).await?;
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
