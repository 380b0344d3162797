//! Follows jobs: hands them over, watches them to their end, brings their output home, and removes what they left.
//!
//! Each [`JobCluster`] has a site with a queue, workers and a loop of its own, so that one that does not answer
//! holds up nobody else. What comes next for a job is decided in `plan`, from its object and the last report alone.

mod act;
mod discard;
mod fetch;
mod leave;
mod orphans;
mod plan;
mod report;
mod request;
mod site;
mod status;
mod submit;
#[cfg(test)]
mod tests;
mod trouble;
mod turn;

use crate::backends::Backends;
use crate::kinds::{GpuJob, JobCluster};
use crate::nodes::cluster_of;
use crate::outputs::Outputs;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_core::client::{Change, Informer, PatchType, key_of};
use minik8s_core::controllers::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use parking_lot::Mutex;
use serde_json::json;
use site::Site;
use std::collections::HashMap;
use std::sync::Arc;

/// Keeps an object until nothing is left of it elsewhere.
pub(crate) const FINALIZER: &str = "minik8s.io/remote-job";

/// Follows jobs.
pub struct GpuJobController {
    /// How clusters are reached.
    pub backends: Arc<dyn Backends>,
    /// Where output goes.
    pub outputs: Arc<Outputs>,
}

/// What all sites share.
struct Shared {
    ctx: ControllerContext,
    jobs: Informer<GpuJob>,
    clusters: Informer<JobCluster>,
    backends: Arc<dyn Backends>,
    outputs: Arc<Outputs>,
    sites: Mutex<HashMap<String, Arc<Site>>>,
}

#[async_trait]
impl Controller for GpuJobController {
    fn name(&self) -> &str {
        "gpujob-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (jobs, clusters) = (ctx.informers.of::<GpuJob>(), ctx.informers.of::<JobCluster>());
        jobs.add_index("cluster", |job: &GpuJob| vec![cluster_key(job)]);
        if !(jobs.synced().await && clusters.synced().await) {
            return;
        }
        let shared = Arc::new(Shared {
            ctx: ctx.clone(),
            jobs: jobs.clone(),
            clusters: clusters.clone(),
            backends: self.backends.clone(),
            outputs: self.outputs.clone(),
            sites: Mutex::default(),
        });
        let homeless = ctx.queue::<String>();
        let (of_clusters, of_jobs, queue) = (shared.clone(), shared.clone(), homeless.clone());
        let (left, of_pods) = (homeless.clone(), shared.clone());
        let pods = ctx.informers.of::<Pod>();
        pump(&ctx, &pods, move |change| of_pods.pod_changed(change));
        pump(&ctx, &clusters, move |change| of_clusters.cluster_changed(change, &left));
        pump(&ctx, &jobs, move |change| of_jobs.job_changed(change, &queue));
        let orphans = orphans::run(&ctx, pods, clusters);
        tokio::join!(run_workers(&ctx, &homeless, 1, Arc::new(Homeless(shared))), orphans);
    }
}

/// How to delete an object that waits for something elsewhere.
fn let_go(resource: &str, of: &ObjectMeta) -> String {
    let (name, namespace) = (of.name.as_deref().unwrap_or_default(), of.namespace.as_deref().unwrap_or_default());
    format!(
        "to delete it all the same, and leave what is there: kubectl patch {resource} {name} -n {namespace} --type=merge -p \
         '{{\"metadata\":{{\"finalizers\":null}}}}'"
    )
}

/// The key of a job's cluster.
fn cluster_key(job: &GpuJob) -> String {
    format!("{}/{}", job.metadata.namespace.as_deref().unwrap_or_default(), job.spec.cluster)
}

impl Shared {
    /// Begins or ends the site of a cluster, or begins it anew where the cluster is another now.
    fn cluster_changed(
        self: &Arc<Self>,
        change: &Change<JobCluster>,
        homeless: &minik8s_core::client::WorkQueue<String>,
    ) {
        let (key, now) = match change {
            Change::Applied { new, .. } => (key_of(new.as_ref()), Some(new.clone())),
            Change::Deleted(old) => (key_of(old.as_ref()), None),
            Change::Resync => {
                let gone = |key: &String| self.clusters.get(key).is_none();
                self.sites.lock().retain(|key, site| {
                    let stays = !gone(key);
                    if !stays {
                        site.end();
                    }
                    stays
                });
                return;
            }
        };
        let mut sites = self.sites.lock();
        match now {
            Some(cluster) if sites.get(&key).is_some_and(|site| site.is_of(&cluster)) => {
                // Its jobs are ended, and somebody has to see to it that nothing is left.
                if cluster.metadata.deletion_timestamp.is_some() {
                    sites.get(&key).iter().for_each(|site| site.wake());
                }
            }
            Some(cluster) => {
                sites.get(&key).iter().for_each(|old| old.end());
                let site = Site::start(self.clone(), &key, cluster);
                sites.insert(key, site);
            }
            None => {
                sites.remove(&key).iter().for_each(|old| old.end());
                self.jobs.list_by("cluster", &key).iter().for_each(|job| homeless.add(key_of(job.as_ref())));
            }
        }
    }

    fn job_changed(&self, change: &Change<GpuJob>, homeless: &minik8s_core::client::WorkQueue<String>) {
        let (Change::Applied { new: job, .. } | Change::Deleted(job)) = change else { return };
        let key = key_of(job.as_ref());
        match self.sites.lock().get(&cluster_key(job)) {
            Some(site) => site.queue.add(key),
            None => homeless.add(key),
        }
    }

    /// Something has become of a pod: where it is a job's, its cluster is asked soon.
    fn pod_changed(&self, change: &Change<Pod>) {
        let (Change::Applied { new: pod, .. } | Change::Deleted(pod)) = change else { return };
        let Some(cluster) = cluster_of(pod) else { return };
        let sites = self.sites.lock();
        let of = |site: &&Arc<Site>| site.cluster.metadata.uid.as_deref() == Some(cluster);
        sites.values().find(of).iter().for_each(|site| site.hurry());
    }

    /// Puts our finalizer on a job, or takes it off.
    async fn finalizer(&self, job: &GpuJob, keep: bool) -> minik8s_core::api::ApiResult<()> {
        let mut all = job.metadata.finalizers.clone().unwrap_or_default();
        all.retain(|name| name != FINALIZER);
        if keep {
            all.push(FINALIZER.to_owned());
        }
        let patch = json!({"metadata": {"finalizers": all, "resourceVersion": job.metadata.resource_version}});
        let api = self.ctx.client.api::<GpuJob>(job.metadata.namespace.as_deref().unwrap_or_default());
        api.patch(job.metadata.name.as_deref().unwrap_or_default(), PatchType::Merge, &patch).await.map(|_| ())
    }

    /// Deletes what is here of a job, and lets its object go.
    async fn release(&self, job: &GpuJob) -> minik8s_core::api::ApiResult<()> {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        if let Err(error) = self.outputs.remove(uid).await {
            tracing::warn!(%error, uid, "output of a deleted job cannot be removed");
        }
        self.finalizer(job, false).await
    }
}

/// Looks after jobs whose cluster does not exist.
struct Homeless(Arc<Shared>);

#[async_trait]
impl Reconciler for Homeless {
    type Key = String;

    async fn reconcile(&self, key: &String) -> minik8s_core::api::ApiResult<Outcome> {
        let shared = &self.0;
        let Some(job) = shared.jobs.get(key) else { return Ok(Outcome::Done) };
        if shared.clusters.get(&cluster_key(&job)).is_some() {
            return Ok(Outcome::Done);
        }
        if job.metadata.deletion_timestamp.is_some() {
            // Whatever is left there cannot be reached any more.
            if job.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER) {
                shared.release(&job).await?;
            }
            return Ok(Outcome::Done);
        }
        let phase = job.status.as_ref().map(|status| status.phase).unwrap_or_default();
        if !phase.is_final() {
            let why = format!("there is no JobCluster {:?} in this namespace", job.spec.cluster);
            status::waiting(&shared.ctx, &job, "ClusterNotFound", &why).await?;
        }
        Ok(Outcome::Done)
    }
}
