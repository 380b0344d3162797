//! What gateways lead to instead of functions: a small HTTP service beside the controllers. It takes calls that nobody
//! waits for, tells what came of them, and takes events for triggers. Gateways find it by a Service of `kube-system`, so
//! that they know nothing of it and need no rights for it.

mod announce;
mod calls;
mod listen;

pub(crate) use listen::{Answer, Asked, Refused, accept, say, whole};

use crate::triggers::{Hooks, TriggersConfig, WEBHOOKS};
use announce::Announcer;
use async_trait::async_trait;
use calls::Calls;
use http::StatusCode;
use minik8s_core::controllers::{Controller, ControllerContext};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// The Service's name.
pub(crate) const SERVICE: &str = "serverless";
/// The Service's port.
pub(crate) const PORT: u16 = 80;

/// Listens, and says where.
pub(crate) struct FrontController {
    pub(crate) address: SocketAddr,
    pub(crate) triggers: TriggersConfig,
}

#[async_trait]
impl Controller for FrontController {
    fn name(&self) -> &str {
        "serverless-front"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let calls = Calls::new(&ctx);
        let hooks = self.triggers.at_gateways.then(|| Hooks::new(&ctx, &self.triggers));
        let known = match &hooks {
            Some(hooks) => hooks.synced().await,
            None => true,
        };
        if !(calls.synced().await && known) {
            return;
        }
        let listening = TcpListener::bind(self.address).await.and_then(|l| Ok((l.local_addr()?, l)));
        let (address, listener) = match listening {
            Ok(listening) => listening,
            // Ending is trying again, after a pause.
            Err(error) => {
                return tracing::error!(%error, address = %self.address, "calls that nobody waits for cannot be taken");
            }
        };
        let paths = [Some(calls::RESULTS), hooks.as_ref().map(|_| WEBHOOKS)];
        let announcer = Announcer::new(&ctx, address, paths.into_iter().flatten());
        let front = Arc::new(Front { calls, hooks });
        let serving = accept(&ctx.stop, listener, move |request| {
            let front = front.clone();
            async move { front.answer(request).await }
        });
        tokio::select! {
            biased;
            () = serving => {}
            () = announcer.run(&ctx) => {}
        }
    }
}

struct Front {
    calls: Calls,
    hooks: Option<Hooks>,
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
        match &self.hooks {
            Some(hooks) if below(path, WEBHOOKS).is_some() => hooks.served(request).await,
            _ => Err(Refused::new(StatusCode::NOT_FOUND, format!("nothing is at {path}"))),
        }
    }
}

/// A namespace and a name.
pub(crate) type Place = (String, String);

/// `prefix/NAMESPACE/NAME`.
pub(crate) fn below(path: &str, prefix: &str) -> Option<Place> {
    let (namespace, name) = path.strip_prefix(prefix)?.strip_prefix('/')?.split_once('/')?;
    Some((namespace.to_owned(), name.to_owned()))
}
