//! What extensions serve beside every API server, at addresses of their own. A Service of `kube-system` leads to all that
//! live, by the same word of their servers as the Service `kubernetes` does (see [`presence`](super::presence)): whoever
//! leads, and wherever, has nothing to do with it.

use super::bootstrap::replace;
use super::presence::{EVERY, Place, goodbye};
use super::{ApiServer, keys};
use crate::api::{ApiError, ApiResult, FOR_ALL_NAMESPACES, Gvr, Target};
use crate::client::{
    Client, DeleteOptions, DeletePreconditions, ListOptions, PatchType, Payload, Transport, WriteOptions,
};
use crate::clock::SharedClock;
use crate::controllers::{Controller, ControllerContext, ControllerManager, ControllerMetrics};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Where their Services are.
const NAMESPACE: &str = "kube-system";
/// What their Services bear, which nobody else's do.
const MADE_HERE: &str = "minik8s.io/sidecar";
const SERVICES: Gvr = Gvr::new("", "v1", "services");

/// Something that an extension serves beside every API server. Gateways find it by its Service, which bears the label
/// [`FOR_ALL_NAMESPACES`] and goes when no server of the cluster has it any more.
#[async_trait]
pub trait Sidecar: Send + Sync + 'static {
    /// Its Service in `kube-system`, which is nobody else's.
    fn service(&self) -> &str;

    /// That Service's port.
    fn port(&self) -> u16;

    /// Where it listens: an address of this machine that others reach; port 0 takes a free one.
    fn address(&self) -> SocketAddr;

    /// Serves until `ctx.stop` is cancelled. Whatever it knows it must be able to find again: where it ends sooner or
    /// panics, it is started anew, at another port where any will do.
    async fn serve(&self, listener: TcpListener, ctx: ControllerContext);
}

/// Runs these beside `server` until `shutdown`, and takes away the Services of those that no server has.
pub(crate) async fn run(
    server: Arc<ApiServer>,
    sidecars: Vec<Arc<dyn Sidecar>>,
    (clock, metrics): (SharedClock, ControllerMetrics),
    shutdown: CancellationToken,
) {
    let own: BTreeSet<String> = sidecars.iter().map(|sidecar| sidecar.service().to_owned()).collect();
    let of = |sidecar| Arc::new(Served { server: server.clone(), sidecar }) as Arc<dyn Controller>;
    let client = Client::new(server.clone());
    let all = ControllerManager::new(client, clock, sidecars.into_iter().map(of).collect()).counted(metrics);
    tokio::join!(all.run(shutdown.clone()), tidy(&server, &own, &shutdown));
}

/// One of them, with its word.
struct Served {
    server: Arc<ApiServer>,
    sidecar: Arc<dyn Sidecar>,
}

#[async_trait]
impl Controller for Served {
    fn name(&self) -> &str {
        self.sidecar.service()
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let wanted = self.sidecar.address();
        let bound = TcpListener::bind(wanted).await.and_then(|l| Ok((l.local_addr()?, l)));
        let (own, listener) = match bound {
            Ok(bound) => bound,
            // Ending is trying again, after a pause.
            Err(error) => return tracing::error!(%error, address = %wanted, "{} cannot be served", self.name()),
        };
        let over = ctx.stop.child_token();
        let serving = async {
            self.sidecar.serve(listener, ctx.clone()).await;
            over.cancel();
        };
        tokio::join!(serving, self.keep(own, &over));
    }
}

impl Served {
    /// Says that it is served at `own`, again and again, and in the end that it is no more.
    async fn keep(&self, own: SocketAddr, stop: &CancellationToken) {
        let (place, mut ticks) = (place(self.sidecar.service()), ticks());
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Some(Err(error)) = stop.run_until_cancelled(self.appear(&place, own)).await {
                tracing::warn!(%error, "cannot say that {} is served here", self.sidecar.service());
            }
        }
        goodbye(&self.server, &place, own).await;
    }

    async fn appear(&self, place: &Place<'_>, own: SocketAddr) -> ApiResult<()> {
        // Its word first: nobody takes away the Service of what lives.
        let living = place.living(&self.server, own).await?;
        self.service().await?;
        place.lead(&self.server, &living).await
    }

    /// Makes the Service what it should be, unless it is.
    async fn service(&self) -> ApiResult<()> {
        let name = self.sidecar.service();
        let ports = json!([{"name": "http", "port": self.sidecar.port(), "protocol": "TCP"}]);
        let object = json!({"kind": "Service", "apiVersion": "v1",
            "metadata": {"name": name, "labels": {FOR_ALL_NAMESPACES: "true", MADE_HERE: "true"}},
            "spec": {"clusterIP": "None", "ports": ports}});
        let target = Target::object(SERVICES, NAMESPACE, name);
        match self.server.get(&target).await {
            Ok(found) if [FOR_ALL_NAMESPACES, MADE_HERE].iter().all(|label| is_set(&found.meta.labels, label)) => {
                Ok(())
            }
            Ok(_) => {
                let patch = body(&json!({"metadata": object["metadata"]}))?;
                self.server.patch(&target, PatchType::Merge, patch, &WriteOptions::default()).await.map(drop)
            }
            Err(error) if error.is_not_found() => {
                replace(&self.server, Target::in_namespace(SERVICES, NAMESPACE), &object).await
            }
            Err(error) => Err(error),
        }
    }
}

fn is_set(labels: &BTreeMap<String, String>, name: &str) -> bool {
    labels.get(name).is_some_and(|value| value == "true")
}

fn body(object: &Value) -> ApiResult<Payload> {
    let text = serde_json::to_vec(object).map_err(|e| ApiError::internal(format!("a Service: {e}")))?;
    Ok(Payload::Json(text.into()))
}

fn place(service: &str) -> Place<'_> {
    Place { keys: format!("{}{service}/", keys::SIDECARS), namespace: NAMESPACE, service, port: "http" }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Takes away what leads to sidecars that no server has: at the start, and where servers come and go, all the time.
async fn tidy(server: &ApiServer, own: &BTreeSet<String>, stop: &CancellationToken) {
    let mut ticks = ticks();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match stop.run_until_cancelled(sweep(server, own)).await {
            Some(Err(error)) => tracing::warn!(%error, "what leads to what is served no more cannot be taken away"),
            Some(Ok(())) if !server.store.capabilities().shared => return,
            _ => {}
        }
    }
}

async fn sweep(server: &ApiServer, own: &BTreeSet<String>) -> ApiResult<()> {
    // Others permit requests of other namespaces, too: their Services are theirs.
    let label_selector = format!("{MADE_HERE}=true");
    let options = ListOptions { label_selector, ..ListOptions::default() };
    let found = server.list(&Target::in_namespace(SERVICES, NAMESPACE), &options).await?;
    for (service, uid) in found.items.iter().map(|service| (&service.meta.name, &service.meta.uid)) {
        if own.contains(service) {
            continue;
        }
        let place = place(service);
        if place.others(server).await?.is_empty() {
            // Its routes belong to the Service, and go with it.
            place.lead(server, &BTreeSet::new()).await?;
            let preconditions = DeletePreconditions { uid: Some(uid.clone()), resource_version: None };
            let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
            let gone = server.delete(&Target::object(SERVICES, NAMESPACE, service), &options).await;
            let fine = |error: &ApiError| error.is_not_found() || error.is_of_another() || error.is_conflict();
            gone.map(drop).or_else(|error| if fine(&error) { Ok(()) } else { Err(error) })?;
        }
    }
    Ok(())
}
