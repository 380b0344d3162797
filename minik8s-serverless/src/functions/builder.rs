//! Builds the images of revisions, and forgets what no revision needs any more.

use super::api::{FunctionRevision, FunctionRevisionStatus};
use super::build::{self, BuildError};
use crate::registry::Registry;
use async_trait::async_trait;
use minik8s_core::api::ApiResult;
use minik8s_core::client::{Change, Informer, PatchType, key_of};
use minik8s_core::controllers::conditions::{Wanted, settle};
use minik8s_core::controllers::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Builds at once: each is bound by the disk.
const WORKERS: usize = 2;
/// After a build that may work later.
const AGAIN: Duration = Duration::from_secs(2);
/// What came to the registry so lately may be part of what is being made.
const GRACE: Duration = Duration::from_secs(600);
/// The key under which what nobody needs is looked for.
const SWEEP: &str = "";
/// Between two looks for what nobody needs.
const SWEEP_PERIOD: Duration = Duration::from_secs(600);

pub(super) struct BuildController {
    pub(super) registry: Registry,
}

#[async_trait]
impl Controller for BuildController {
    fn name(&self) -> &str {
        "function-builder"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let revisions = ctx.informers.of::<FunctionRevision>();
        revisions.synced().await;
        let queue = ctx.queue();
        let q = queue.clone();
        pump(&ctx, &revisions, move |change| {
            if let Change::Applied { new, .. } = change
                && wants_building(new)
            {
                q.add(key_of(&**new));
            }
        });
        queue.add_after(SWEEP.to_owned(), SWEEP_PERIOD);
        let builder = Builder { ctx: ctx.clone(), revisions, registry: self.registry.clone() };
        run_workers(&ctx, &queue, WORKERS, Arc::new(builder)).await;
    }
}

fn wants_building(revision: &FunctionRevision) -> bool {
    let built = revision.status.iter().flat_map(|s| &s.conditions).find(|c| c.type_ == "Built");
    let done = built.is_some_and(|c| c.status == "True" || c.reason == super::status::BROKEN);
    revision.spec.template.source.is_some() && revision.metadata.deletion_timestamp.is_none() && !done
}

struct Builder {
    ctx: ControllerContext,
    revisions: Informer<FunctionRevision>,
    registry: Registry,
}

#[async_trait]
impl Reconciler for Builder {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        if key == SWEEP {
            self.sweep().await;
            return Ok(Outcome::After(SWEEP_PERIOD));
        }
        let Some(revision) = self.revisions.get(key).filter(|r| wants_building(r)) else { return Ok(Outcome::Done) };
        let built = build::build(&self.registry, &revision).await;
        let again = built.as_ref().err().is_some_and(|error| !error.is_hopeless());
        self.tell(&revision, built).await?;
        Ok(if again { Outcome::After(AGAIN) } else { Outcome::Done })
    }
}

impl Builder {
    async fn tell(&self, revision: &FunctionRevision, built: Result<String, BuildError>) -> ApiResult<()> {
        let before = revision.status.clone().unwrap_or_default();
        let mut told =
            FunctionRevisionStatus { image: built.as_ref().ok().cloned().unwrap_or_default(), ..before.clone() };
        let wanted = match &built {
            Ok(image) => Wanted::yes("Built", "Built", format!("the image is {image}")),
            Err(error) => {
                told.log = error.to_string();
                let reason = if error.is_hopeless() { super::status::BROKEN } else { "NotBuilt" };
                Wanted::no("Built", reason, error.to_string())
            }
        };
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

    async fn sweep(&self) {
        let revisions = self.revisions.list();
        let image = |r: &FunctionRevision| {
            let name = r.status.as_ref().map(|s| s.image.clone()).unwrap_or_default();
            name.rsplit_once('@').map(|(_, digest)| digest.to_owned())
        };
        let source = |r: &FunctionRevision| r.spec.template.source.as_ref().map(|s| s.digest.clone());
        let roots: Vec<String> = revisions.iter().flat_map(|r| image(r).into_iter().chain(source(r))).collect();
        let gone = self.registry.collect(roots, GRACE).await;
        if gone > 0 {
            tracing::info!(gone, "the registry has forgotten what no function needs");
        }
    }
}
