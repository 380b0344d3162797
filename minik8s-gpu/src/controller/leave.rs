//! A cluster that is deleted: its object stays until nothing of its jobs is left there, or says why not and how to let go.

use super::site::Site;
use super::turn::{DENIED_PAUSE, after, in_time};
use super::{let_go, status};
use crate::kinds::{JobCluster, Phase};
use minik8s_core::api::ApiResult;
use minik8s_core::client::{EventType, PatchType, key_of};
use minik8s_core::job::{JobError, JobResult, SharedJobBackend};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Keeps a cluster's object while something of its jobs may be there.
const FINALIZER: &str = "minik8s.io/remote-jobs";

fn holds(cluster: &JobCluster) -> bool {
    cluster.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER)
}

impl Site {
    /// The cluster as it is now.
    fn current(&self) -> Option<Arc<JobCluster>> {
        self.shared.clusters.get(&key_of(self.cluster.as_ref()))
    }

    /// The cluster is being deleted.
    pub(super) fn leaving(&self) -> bool {
        self.current().is_some_and(|cluster| cluster.metadata.deletion_timestamp.is_some())
    }

    /// Keeps the cluster's object, from before the first job is handed over.
    pub(super) async fn hold(&self) -> ApiResult<()> {
        match self.current() {
            Some(cluster) if !holds(&cluster) => self.finalizer(&cluster, true).await,
            _ => Ok(()),
        }
    }

    async fn finalizer(&self, cluster: &JobCluster, keep: bool) -> ApiResult<()> {
        let mut all = cluster.metadata.finalizers.clone().unwrap_or_default();
        all.retain(|name| name != FINALIZER);
        if keep {
            all.push(FINALIZER.to_owned());
        }
        let patch = json!({"metadata": {"finalizers": all, "resourceVersion": cluster.metadata.resource_version}});
        let api = self.shared.ctx.client.api::<JobCluster>(cluster.metadata.namespace.as_deref().unwrap_or_default());
        api.patch(cluster.metadata.name.as_deref().unwrap_or_default(), PatchType::Merge, &patch).await.map(|_| ())
    }

    /// Names of jobs of which something may be there.
    fn busy(&self) -> Vec<String> {
        let busy = |phase: Phase| !phase.is_final() && phase != Phase::Pending;
        let phase = |status: &crate::kinds::GpuJobStatus| status.phase;
        let there = self.jobs().into_iter().filter(|job| job.status.as_ref().map(phase).is_some_and(busy));
        there.map(|job| job.metadata.name.clone().unwrap_or_default()).collect()
    }

    /// Lets the cluster's object go where that may be, else says why not. It is not tried again before the answer has passed.
    pub(super) async fn leave(&self, backend: Option<&SharedJobBackend>) -> Duration {
        let Some(cluster) = self.current().filter(|cluster| holds(cluster)) else { return Duration::ZERO };
        let done = match self.busy().as_slice() {
            [] => self.let_it_go(&cluster, backend).await,
            jobs => self.stays(&cluster, jobs).await.map(|()| Duration::ZERO),
        };
        done.unwrap_or_else(|error| {
            tracing::debug!(%error, "a job cluster that is being deleted cannot be written");
            Duration::ZERO
        })
    }

    /// Nothing is known of jobs there any more. What nobody knows of may be a job that still runs: the object stays until that
    /// is ended, or until somebody says that it may be left.
    async fn let_it_go(&self, cluster: &JobCluster, backend: Option<&SharedJobBackend>) -> ApiResult<Duration> {
        let (reason, why, least) = match backend {
            Some(backend) => match self.empty(backend).await {
                Ok(()) => return self.finalizer(cluster, false).await.map(|()| Duration::ZERO),
                Err(error @ JobError::Denied { .. }) => (error.reason(), error.to_string(), DENIED_PAUSE),
                Err(error) => (error.reason(), error.to_string(), Duration::ZERO),
            },
            None => match self.problem() {
                Some((reason, why)) => (reason, why, Duration::ZERO),
                None => ("Connecting", "it is not connected to yet".to_owned(), Duration::ZERO),
            },
        };
        let times = self.partings.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let what = format!("what may be left of jobs there is ended and its directory removed first, but {why}");
        self.say(cluster, reason, &what).await?;
        Ok(after(times).max(least))
    }

    /// Removes what no object knows of, then what the backend has for itself.
    async fn empty(&self, backend: &SharedJobBackend) -> JobResult<()> {
        for id in in_time(backend.kept()).await? {
            in_time(backend.remove(&id)).await?;
        }
        in_time(backend.leave()).await
    }

    async fn stays(&self, cluster: &JobCluster, jobs: &[String]) -> ApiResult<()> {
        let some: Vec<&str> = jobs.iter().take(5).map(String::as_str).collect();
        let more = if jobs.len() > some.len() { ", …" } else { "" };
        let what =
            format!("jobs are ended there and their files fetched first ({}: {}{more})", jobs.len(), some.join(", "));
        match self.problem() {
            None => self.say(cluster, "JobsLeft", &what).await,
            Some((reason, why)) => self.say(cluster, reason, &format!("{what}, but {why}")).await,
        }
    }

    async fn say(&self, cluster: &JobCluster, reason: &str, why: &str) -> ApiResult<()> {
        let mut fresh = cluster.clone();
        let mut told = fresh.status.take().unwrap_or_default();
        let before = told.clone();
        let message = format!("{why}; {}", let_go("jobcluster", &cluster.metadata));
        status::condition(&mut told.conditions, "Deleted", false, reason, &message, self.shared.ctx.clock.now());
        if told == before {
            return Ok(());
        }
        fresh.status = Some(told);
        let api = self.shared.ctx.client.api::<JobCluster>(fresh.metadata.namespace.as_deref().unwrap_or_default());
        api.update_status(&fresh).await.map(|_| ())
    }

    /// Removes there what belongs to no object any more. What cannot be removed is told, and tried again at the next look;
    /// it keeps nobody from using the cluster.
    pub(super) async fn sweep(&self, backend: &SharedJobBackend, kept: Vec<minik8s_core::job::JobId>) {
        let known: std::collections::HashSet<String> =
            self.shared.jobs.list().iter().filter_map(|job| job.metadata.uid.clone()).collect();
        for id in kept.into_iter().filter(|id| !known.contains(&id.uid)) {
            tracing::info!(%id, "removing a job that has no object any more");
            let Err(error) = backend.remove(&id).await else { continue };
            let note = format!("{id} belongs to no object and cannot be removed there: {error}");
            self.shared.ctx.events.event(&self.reference(), EventType::Warning, "OrphanNotRemoved", note);
            if matches!(error, JobError::Away { .. } | JobError::Denied { .. }) {
                return;
            }
        }
    }
}
