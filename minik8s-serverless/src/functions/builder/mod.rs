//! Builds the images of revisions.

mod install;

pub(super) use install::LABEL as INSTALLS_FOR;

use super::api::FunctionRevision;
use super::build::{self, BuildError, Laid, Packages, layer::Layer};
use super::writes::{gone, is_owned_by, unmade};
use crate::registry::{self, Registry};
use async_trait::async_trait;
use install::Progress;
use k8s_openapi::api::core::v1::Pod;
use minik8s_core::api::ApiResult;
use minik8s_core::client::{Change, DeleteOptions, DeletePreconditions, Informer, PatchType, key_of, object_key};
use minik8s_core::controllers::conditions::{Wanted, settle};
use minik8s_core::controllers::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Builds at once: each is bound by the disk.
const WORKERS: usize = 2;
/// After a build that may work later.
const AGAIN: Duration = Duration::from_secs(2);

pub(super) struct BuildController {
    pub(super) registry: Registry,
}

#[async_trait]
impl Controller for BuildController {
    fn name(&self) -> &str {
        "function-builder"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (revisions, pods) = (ctx.informers.of::<FunctionRevision>(), ctx.informers.of::<Pod>());
        let (_, _) = tokio::join!(revisions.synced(), pods.synced());
        let queue = ctx.queue();
        let q = queue.clone();
        pump(&ctx, &revisions, move |change| {
            if let Change::Applied { new, .. } = change
                && new.spec.template.source.is_some()
            {
                q.add(key_of(&**new));
            }
        });
        let q = queue.clone();
        let every = revisions.clone();
        pump(&ctx, &pods, move |change| match change {
            Change::Applied { new: pod, .. } | Change::Deleted(pod) => {
                installs_for(pod).into_iter().for_each(|key| q.add(key))
            }
            Change::Resync => every.list().iter().filter(|r| wants_building(r)).for_each(|r| q.add(key_of(&**r))),
        });
        let builder = Builder { ctx: ctx.clone(), revisions, pods, registry: self.registry.clone() };
        run_workers(&ctx, &queue, WORKERS, Arc::new(builder)).await;
    }
}

fn wants_building(revision: &FunctionRevision) -> bool {
    let built = revision.status.iter().flat_map(|s| &s.conditions).find(|c| c.type_ == "Built");
    let done = built.is_some_and(|c| c.status == "True" || c.reason == super::status::BROKEN);
    revision.spec.template.source.is_some() && revision.metadata.deletion_timestamp.is_none() && !done
}

/// The revision that a pod installs for.
fn installs_for(pod: &Pod) -> Option<String> {
    let name = pod.metadata.labels.as_ref()?.get(install::LABEL)?;
    Some(object_key(pod.metadata.namespace.as_deref().unwrap_or_default(), name))
}

/// The word under which it sends what it has installed.
fn word_of(pod: &Pod) -> String {
    install::send_to(pod).and_then(|place| place.rsplit_once('/').map(|(_, word)| word.to_owned())).unwrap_or_default()
}

/// What has come of a build.
enum Built {
    /// The image.
    Done(String),
    /// A pod installs what is required; what it waits for.
    Installing(String),
    /// Nothing yet: after so long is the time to look again.
    Failed(BuildError, Duration),
}

struct Builder {
    ctx: ControllerContext,
    revisions: Informer<FunctionRevision>,
    pods: Informer<Pod>,
    registry: Registry,
}

#[async_trait]
impl Reconciler for Builder {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let Some(revision) = self.revisions.get(key) else { return Ok(Outcome::Done) };
        if !wants_building(&revision) {
            // What installed for it has done its work.
            self.dismiss(&revision).await?;
            return Ok(Outcome::Done);
        }
        let built = match self.installs(&revision) {
            Some(built) => built,
            None => self.build(&revision).await?,
        };
        self.tell(&revision, &built).await?;
        match built {
            Built::Failed(error, after) if !error.is_hopeless() => Ok(Outcome::After(after)),
            // What was told comes back by the informer: only then may what installs go, or it would be made once more.
            _ => Ok(Outcome::Done),
        }
    }
}

impl Built {
    fn failed(error: BuildError) -> Self {
        Self::Failed(error, AGAIN)
    }

    /// What is said of it.
    fn told(&self) -> Wanted {
        match self {
            Self::Done(image) => Wanted::yes("Built", "Built", format!("the image is {image}")),
            Self::Installing(waits) if waits.is_empty() => {
                Wanted::no("Built", "Installing", "its requirements are being installed".to_owned())
            }
            Self::Installing(waits) => {
                Wanted::no("Built", "Installing", format!("its requirements are to be installed, but {waits}"))
            }
            Self::Failed(error, _) => {
                let reason = if error.is_hopeless() { super::status::BROKEN } else { "NotBuilt" };
                Wanted::no("Built", reason, error.to_string())
            }
        }
    }
}

impl Builder {
    /// The pod that installs for a revision.
    fn installing(&self, revision: &FunctionRevision) -> Option<Arc<Pod>> {
        let namespace = revision.metadata.namespace.as_deref().unwrap_or_default();
        let pod = self.pods.get(&object_key(namespace, &install::name(revision)))?;
        is_owned_by(&pod.metadata, &revision.metadata).then_some(pod)
    }

    /// What there is to say where a pod installs, and is not done.
    fn installs(&self, revision: &FunctionRevision) -> Option<Built> {
        match install::progress(&*self.installing(revision)?, self.ctx.clock.now()) {
            Progress::Installing(waits) => Some(Built::Installing(waits)),
            Progress::Failed(error) => Some(Built::failed(error)),
            Progress::Later(error, after) => Some(Built::Failed(error, after)),
            Progress::Done | Progress::Again => None,
        }
    }

    async fn build(&self, revision: &FunctionRevision) -> ApiResult<Built> {
        let laid = match build::lay(&self.registry, revision).await {
            Ok(laid) => laid,
            Err(error) => return Ok(Built::failed(error)),
        };
        if !laid.requires() {
            return Ok(laid.image(None).await.map_or_else(Built::failed, Built::Done));
        }
        let Some(pod) = self.installing(revision) else {
            if let Some(layer) = self.installed_before(&laid, revision).await {
                let made = laid.image(Some(Packages::Layer(layer))).await;
                return Ok(made.map_or_else(Built::failed, Built::Done));
            }
            return self.begin(&laid, revision).await;
        };
        if let Progress::Done = install::progress(&pod, self.ctx.clock.now()) {
            let done = match self.registry.sent(&word_of(&pod)).await {
                Ok(archive) => laid.image(Some(Packages::Archive(&archive))).await,
                Err(error) => Err(error.into()),
            };
            return match done {
                Ok(image) => Ok(Built::Done(image)),
                Err(error) => {
                    // The server that gave the word has died, or leads no more: once more.
                    if !error.is_hopeless() {
                        self.dismiss(revision).await?;
                    }
                    Ok(Built::failed(error))
                }
            };
        }
        self.dismiss(revision).await?;
        Ok(Built::Installing(String::new()))
    }

    /// What was installed for another revision of the function, and would be the same.
    async fn installed_before(&self, laid: &Laid<'_>, revision: &FunctionRevision) -> Option<Layer> {
        let namespace = revision.metadata.namespace.as_deref().unwrap_or_default();
        for other in self.revisions.list_in(namespace) {
            let image = other.status.as_ref().map(|status| status.image.as_str()).filter(|image| !image.is_empty());
            if let Some(image) = image.filter(|_| other.spec.function == revision.spec.function)
                && let Some(found) = laid.packages_of(image).await
            {
                return Some(found);
            }
        }
        None
    }

    /// Makes the pod that installs.
    async fn begin(&self, laid: &Laid<'_>, revision: &FunctionRevision) -> ApiResult<Built> {
        let invited = async { Ok::<_, BuildError>((laid.installer().await?, self.registry.invite().await?)) };
        let (image, word) = match invited.await {
            Ok(both) => both,
            Err(error) => return Ok(Built::failed(error)),
        };
        let pod = install::pod(revision, &image, &registry::place_of_word(&word)).map_err(unmade)?;
        let api = self.ctx.client.api::<Pod>(revision.metadata.namespace.as_deref().unwrap_or_default());
        let Err(error) = api.create(&pod).await else { return Ok(Built::Installing(String::new())) };
        self.registry.forget(&word).await;
        if !error.is_already_exists() {
            return Err(error);
        }
        let name = install::name(revision);
        // It may be ours, and the informer has not shown it yet.
        let ours = api.get_opt(&name).await?.is_none_or(|pod| is_owned_by(&pod.metadata, &revision.metadata));
        let why = format!("there is a pod {name} that is somebody else's: delete it");
        let taken = BuildError::Install { why, log: String::new(), again: true };
        Ok(if ours { Built::Installing(String::new()) } else { Built::failed(taken) })
    }

    /// Takes away the pod that installed for a revision, and what it sent.
    async fn dismiss(&self, revision: &FunctionRevision) -> ApiResult<()> {
        let Some(pod) = self.installing(revision) else { return Ok(()) };
        self.registry.forget(&word_of(&pod)).await;
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let preconditions = DeletePreconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
        let api = self.ctx.client.api::<Pod>(pod.metadata.namespace.as_deref().unwrap_or_default());
        gone(api.delete(&install::name(revision), &options).await.map(drop))
    }

    async fn tell(&self, revision: &FunctionRevision, built: &Built) -> ApiResult<()> {
        let before = revision.status.clone().unwrap_or_default();
        let mut told = before.clone();
        match built {
            Built::Done(image) => (told.image, told.log) = (image.clone(), String::new()),
            Built::Failed(error, _) => (told.image, told.log) = (String::new(), error.log()),
            Built::Installing(_) => {}
        }
        let wanted = built.told();
        let (generation, now) = (revision.metadata.generation.unwrap_or(0), self.ctx.clock.now());
        let others = before.conditions.iter().filter(|c| c.type_ != "Built").cloned();
        told.conditions = others.chain(settle(&before.conditions, vec![wanted], generation, now)).collect();
        if told == before {
            return Ok(());
        }
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        let api = self.ctx.client.api::<FunctionRevision>(revision.metadata.namespace.as_deref().unwrap_or_default());
        // The version is a precondition: the other controller writes this status too.
        let meta = json!({"resourceVersion": revision.metadata.resource_version});
        let patch =
            json!({"metadata": meta, "status": {"image": told.image, "log": told.log, "conditions": told.conditions}});
        api.patch_status(name, PatchType::Merge, &patch).await.map(drop)
    }
}
