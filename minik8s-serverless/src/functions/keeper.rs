//! Keeps what functions need in the registry's directory, beside every API server: what this one lacks is brought here while
//! others have it, and what nobody needs is forgotten.

use super::api::FunctionRevision;
use super::builder::INSTALLS_FOR;
use crate::registry::{HOST, NAMES_LABEL, Registry, named};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use minik8s_core::api::ApiResult;
use minik8s_core::client::{Change, Informer, InformerOptions, WorkQueue};
use minik8s_core::controllers::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use minik8s_core::server::Peers;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Brought here at once.
const WORKERS: usize = 2;
/// After something could not be had from others.
const AGAIN: Duration = Duration::from_secs(20);
/// What came to the registry so lately may be part of what is being made.
const GRACE: Duration = Duration::from_secs(600);
/// The key under which what nobody needs is looked for.
const SWEEP: &str = "";
/// Between two looks for what nobody needs.
const SWEEP_PERIOD: Duration = Duration::from_secs(600);

/// Makes a registry one with those of the other API servers.
pub(crate) struct Neighbours {
    pub(crate) registry: Registry,
    pub(crate) peers: Peers,
    /// Whether nobody else keeps to who lives.
    pub(crate) follows: bool,
}

#[async_trait]
impl Controller for Neighbours {
    fn name(&self) -> &str {
        "registry-neighbours"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        if let Err(error) = self.registry.join(&ctx.client, &self.peers).await {
            // Ending is trying again, after a pause.
            return tracing::warn!(%error, "names of images in the registry's directory are not moved yet");
        }
        if self.follows {
            self.peers.follow(&ctx.client, ctx.stop.clone()).await;
        }
        ctx.stop.cancelled().await;
    }
}

/// Keeps a registry's directory.
pub(crate) struct Keeper {
    pub(crate) registry: Registry,
    pub(crate) peers: Peers,
}

#[async_trait]
impl Controller for Keeper {
    fn name(&self) -> &str {
        "registry-keeper"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let labelled = |label_selector: &str| InformerOptions {
            label_selector: label_selector.to_owned(),
            ..InformerOptions::default()
        };
        let needs = Needs {
            revisions: ctx.informers.of(),
            pods: ctx.informers.select(labelled(INSTALLS_FOR)),
            names: ctx.informers.select(labelled(NAMES_LABEL)),
        };
        tokio::join!(needs.revisions.synced(), needs.pods.synced(), needs.names.synced());
        let (queue, changes) = (ctx.queue(), self.peers.changes());
        feed(&ctx, &needs.revisions, &queue, of_revision);
        feed(&ctx, &needs.pods, &queue, of_pod);
        feed(&ctx, &needs.names, &queue, |object| named(object).cloned().collect());
        queue.add_after(SWEEP.to_owned(), SWEEP_PERIOD);
        let keeping = Keeping { registry: self.registry.clone(), peers: self.peers.clone(), needs };
        let news = again_with_others(changes, &keeping.needs, &queue);
        let workers = run_workers(&ctx, &queue, WORKERS, Arc::new(keeping.clone()));
        tokio::select! {
            biased;
            () = workers => {}
            // Never while there are workers: they hold the other end.
            () = news => {}
        }
    }
}

/// Looks at what an object needs when it comes or changes.
fn feed<K: Send + Sync + 'static>(
    ctx: &ControllerContext,
    informer: &Informer<K>,
    queue: &WorkQueue<String>,
    needs: impl Fn(&K) -> Vec<String> + Send + Sync + 'static,
) {
    let queue = queue.clone();
    pump(ctx, informer, move |change| {
        if let Change::Applied { new, .. } = change {
            needs(new).into_iter().for_each(|digest| queue.add(digest));
        }
    });
}

/// Looks at everything again when servers come or go.
async fn again_with_others(mut changes: watch::Receiver<Vec<String>>, needs: &Needs, queue: &WorkQueue<String>) {
    while changes.changed().await.is_ok() {
        needs.all().into_iter().for_each(|digest| queue.add(digest));
    }
}

/// The objects that need something of the registry.
#[derive(Clone)]
struct Needs {
    revisions: Informer<FunctionRevision>,
    pods: Informer<Pod>,
    names: Informer<ConfigMap>,
}

impl Needs {
    /// The digests of all they need. What those lead to is needed, too.
    fn all(&self) -> BTreeSet<String> {
        let of_revisions = self.revisions.list().into_iter().flat_map(|revision| of_revision(&revision));
        let of_pods = self.pods.list().into_iter().flat_map(|pod| of_pod(&pod));
        let of_names = self.names.list().into_iter().flat_map(|names| named(&names).cloned().collect::<Vec<_>>());
        of_revisions.chain(of_pods).chain(of_names).collect()
    }
}

fn of_revision(revision: &FunctionRevision) -> Vec<String> {
    let image = revision.status.as_ref().and_then(|status| digest_of(&status.image));
    let source = revision.spec.template.source.as_ref().map(|source| source.digest.clone());
    image.into_iter().chain(source).collect()
}

/// What installs may wait for a node for long.
fn of_pod(pod: &Pod) -> Vec<String> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.filter_map(|container| digest_of(container.image.as_ref()?)).collect()
}

/// The digest of an image of this registry.
fn digest_of(image: &str) -> Option<String> {
    let rest = image.strip_prefix(HOST)?.strip_prefix('/')?;
    rest.rsplit_once('@').map(|(_, digest)| digest.to_owned())
}

#[derive(Clone)]
struct Keeping {
    registry: Registry,
    peers: Peers,
    needs: Needs,
}

#[async_trait]
impl Reconciler for Keeping {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        if key == SWEEP {
            let collected = self.registry.collect(self.needs.all(), GRACE).await;
            if collected > 0 {
                tracing::info!(collected, "the registry has forgotten what no function needs");
            }
            return Ok(Outcome::After(SWEEP_PERIOD));
        }
        // Whoever is alone is told of those who come.
        if self.peers.others().is_empty() {
            return Ok(Outcome::Done);
        }
        match self.registry.keep(key).await {
            Err(error) if self.needs.all().contains(key) => {
                tracing::warn!(%error, "something that functions need is not kept here yet");
                Ok(Outcome::After(AGAIN))
            }
            _ => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_of_this_registry_are_kept() {
        let table = [
            ("minik8s.internal/functions/default/f@sha256:1", Some("sha256:1")),
            ("minik8s.internal/functions/default/f:latest", None),
            ("docker.io/library/busybox@sha256:1", None),
            ("minik8s.internal.example.com/f@sha256:1", None),
        ];
        for (image, want) in table {
            assert_eq!(digest_of(image).as_deref(), want, "{image}");
        }
    }
}
