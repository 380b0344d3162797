//! What gateways lead to instead of functions: a small HTTP service beside every API server. It takes calls that nobody
//! waits for, tells what came of them, and takes events for triggers. Gateways find it by a Service of `kube-system`, so
//! that they know nothing of it and need no rights for it. It leads nothing and remembers nothing: which process makes the
//! calls that it took is decided elsewhere, and when one of these goes, the others take its requests.

mod announce;
mod calls;
mod coming;
mod listen;

pub(crate) use announce::{NAMESPACE, name};
pub(crate) use listen::{Answer, Asked, Refused, accept, say, whole};

use crate::triggers::{Hooks, TriggersConfig, WEBHOOKS};
use announce::Announcer;
use async_trait::async_trait;
use calls::Calls;
use http::StatusCode;
use k8s_openapi::api::core::v1::Service;
use minik8s_core::api::{FOR_ALL_NAMESPACES, PathRoute};
use minik8s_core::client::{Informer, object_key};
use minik8s_core::controllers::ControllerContext;
use minik8s_core::server::Sidecar;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// The Service's name.
pub(crate) const SERVICE: &str = "serverless";
/// The Service's port.
pub(crate) const PORT: u16 = 80;

/// True of the Service that leads to fronts.
pub(crate) fn leads_here(service: &Service) -> bool {
    let meta = &service.metadata;
    let labelled = || meta.labels.as_ref()?.get(FOR_ALL_NAMESPACES).map(|value| value == "true");
    meta.name.as_deref() == Some(SERVICE)
        && meta.namespace.as_deref() == Some(NAMESPACE)
        && meta.deletion_timestamp.is_none()
        && labelled().unwrap_or(false)
}

/// Listens, and leads gateways to it.
pub(crate) struct FrontSidecar {
    pub(crate) address: SocketAddr,
    pub(crate) triggers: TriggersConfig,
}

#[async_trait]
impl Sidecar for FrontSidecar {
    fn service(&self) -> &str {
        SERVICE
    }

    fn port(&self) -> u16 {
        PORT
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn serve(&self, listener: TcpListener, ctx: ControllerContext) {
        let (calls, hooks) = (Calls::new(&ctx), Hooks::new(&ctx, &self.triggers));
        let routes = ctx.informers.of::<PathRoute>();
        if !(calls.synced().await && hooks.synced().await && routes.synced().await) {
            return;
        }
        let paths = [Some(calls::RESULTS), self.triggers.at_gateways.then_some(WEBHOOKS)];
        let announcer = Announcer::new(&ctx, paths.into_iter().flatten().collect());
        let front = Arc::new(Front { calls, hooks, routes });
        // A gateway that connects anew for each request notices that a machine is dead before it has sent anything, and
        // may ask another; on a connection that is kept it could only wait.
        let serving = accept(&ctx.stop, listener, false, move |request| {
            let front = front.clone();
            async move { front.answer(request).await }
        });
        tokio::select! {
            biased;
            () = serving => {}
            () = announcer.run(&ctx, &[calls::RESULTS, WEBHOOKS]) => {}
        }
    }
}

struct Front {
    calls: Calls,
    hooks: Hooks,
    routes: Informer<PathRoute>,
}

impl Front {
    async fn answer(&self, request: Asked) -> Answer {
        self.served(request).await.unwrap_or_else(Refused::answer)
    }

    async fn served(&self, request: Asked) -> Result<Answer, Refused> {
        let path = request.uri().path();
        if let Some(place) = below(path, calls::FUNCTIONS) {
            return self.calls.take(place, request).await;
        }
        if let Some(place) = below(path, calls::RESULTS) {
            return self.calls.tell(place, request.method()).await;
        }
        match below(path, WEBHOOKS) {
            Some(_) if self.takes_events() => self.hooks.served(request).await,
            _ => Err(Refused::new(StatusCode::NOT_FOUND, format!("nothing is at {path}"))),
        }
    }
}

impl Front {
    /// True where some server of the cluster was told to take them: gateways lead its events to any of the fronts.
    fn takes_events(&self) -> bool {
        self.routes.get(&object_key(NAMESPACE, name(WEBHOOKS))).is_some()
    }
}

/// A namespace and a name.
pub(crate) type Place = (String, String);

/// `prefix/NAMESPACE/NAME`.
pub(crate) fn below(path: &str, prefix: &str) -> Option<Place> {
    let (namespace, name) = path.strip_prefix(prefix)?.strip_prefix('/')?.split_once('/')?;
    Some((namespace.to_owned(), name.to_owned()))
}
