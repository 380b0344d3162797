//! [`NodesBackend`]: jobs as pods on nodes of this cluster, which the scheduler places and counts like any other, in containers
//! that have the graphics processors they asked for to themselves.
//!
//! All that is known of a job stands in its pods, whose names follow from its identity: one that exists is not made again. A
//! finalizer keeps their records until the job is forgotten, so that how it ended is known whoever took them away. Its files
//! are in a volume of the pod, which nodes show through the API, also after its containers have ended and given back what
//! they had.

mod error;
mod files;
mod judge;
mod parcel;
mod pod;
mod wrapper;
mod writes;

use crate::kinds::NodesSpec;
use async_trait::async_trait;
use bytes::Bytes;
use judge::{is_over, is_running};
use k8s_openapi::api::core::v1::{Pod, Secret};
use minik8s_core::api::{ApiError, ApiResult};
use minik8s_core::client::{Api, Client, DeleteOptions, ListOptions, PatchType};
use minik8s_core::job::{
    FileInfo, FileName, JobBackend, JobCapabilities, JobError, JobHandle, JobId, JobReport, JobRequest, JobResult,
};
use minik8s_core::node::PAUSED;
use parcel::Parcel;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
pub(crate) use writes::let_go;

/// The identity of a pod's job.
const JOB: &str = "minik8s.io/job";
/// The cluster that the job is of, by uid.
const CLUSTER: &str = "minik8s.io/job-cluster";
/// The number of a task of an array.
const TASK: &str = "minik8s.io/job-task";
/// All numbers of the array.
const TASKS: &str = "minik8s.io/job-tasks";
/// How many of them may run at a time.
const AT_ONCE: &str = "minik8s.io/job-at-once";
/// The gate at which tasks wait for their turn.
const TURN: &str = "minik8s.io/turn";
/// Somebody wants it to end.
const CANCELLED: &str = "minik8s.io/job-cancelled";
/// Keeps the record of a pod until its job is forgotten.
const FINALIZER: &str = "minik8s.io/job";
/// The volume with a job's files.
const VOLUME: &str = "job";

/// Where jobs of a `JobCluster` run.
#[derive(Clone, Debug)]
pub struct NodesConfig {
    /// The namespace of their pods: that of the `JobCluster`.
    pub namespace: String,
    /// Its uid.
    pub cluster: String,
    /// What it says of nodes.
    pub spec: NodesSpec,
    /// A node that is silent for so long has failed.
    pub patience: Duration,
}

/// Jobs as pods on nodes of this cluster.
#[derive(Clone)]
pub struct NodesBackend {
    client: Client,
    config: NodesConfig,
}

fn labels(id: &JobId, cluster: &str) -> BTreeMap<String, String> {
    [(JOB.to_owned(), id.to_string()), (CLUSTER.to_owned(), cluster.to_owned())].into()
}

fn task_of(pod: &Pod) -> Option<u32> {
    pod.metadata.labels.as_ref()?.get(TASK)?.parse().ok()
}

fn job_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(JOB)).map(String::as_str).unwrap_or_default()
}

/// The cluster that a pod's job is of, where it is a job's.
pub(crate) fn cluster_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(CLUSTER).map(String::as_str)
}

fn name_of(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// What is forgotten goes by itself, and is not there any more for anybody who asks.
fn is_kept(pod: &Pod) -> bool {
    let ours = pod.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
    ours || pod.metadata.deletion_timestamp.is_none()
}

/// What is gone is done with.
fn gone<T>(result: ApiResult<T>) -> ApiResult<()> {
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

impl NodesBackend {
    /// Jobs of a cluster, through this client.
    pub fn new(client: Client, config: NodesConfig) -> Self {
        Self { client, config }
    }

    fn api(&self) -> Api<Pod> {
        self.client.api(&self.config.namespace)
    }

    /// All pods with these labels, in order of their tasks.
    async fn select(&self, label_selector: String) -> JobResult<Vec<Pod>> {
        let options = ListOptions { label_selector, ..ListOptions::default() };
        let mut pods = self.api().list(&options).await.map_err(error::odd)?.items;
        pods.sort_by_key(task_of);
        Ok(pods)
    }

    async fn pods_of(&self, id: &JobId) -> JobResult<Vec<Pod>> {
        let mut pods = self.select(format!("{JOB}={id},{CLUSTER}={}", self.config.cluster)).await?;
        pods.retain(is_kept);
        Ok(pods)
    }

    /// Makes the pods, whose names say whose they are: what is there already was made by another try of the same.
    async fn make(&self, job: &JobRequest) -> JobResult<()> {
        let request = job.clone();
        // Millions of bytes: not on a thread that others need.
        let packed = tokio::task::spawn_blocking(move || Parcel::of(&request)).await;
        let parcel = packed.map_err(|error| JobError::Odd(error.to_string()))??;
        let pods = pod::pods(job, &self.config, &parcel)?;
        let secrets = self.client.api::<Secret>(&self.config.namespace);
        let there = |result: ApiResult<()>| match result {
            Err(error) if error.is_already_exists() => Ok(()),
            other => other,
        };
        let made = async {
            for secret in parcel.secrets(job, &self.config.cluster, pod::owner(job)) {
                there(secrets.create(&secret).await.map(drop))?;
            }
            for pod in pods {
                there(self.api().create(&pod).await.map(drop))?;
            }
            Ok::<_, ApiError>(())
        };
        match made.await.map_err(error::refused) {
            Err(refused @ JobError::Refused { .. }) => {
                self.remove(&job.id).await?;
                Err(refused)
            }
            other => other,
        }
    }

    async fn report(&self, job: &JobHandle, pods: &[Pod], sizes: &HashMap<String, Vec<(FileName, u64)>>) -> JobReport {
        if let Err(error) = self.advance(pods).await {
            tracing::debug!(%error, id = %job.id, "a task of an array cannot be let on yet");
        }
        let mut report = judge::report(&job.id, pods);
        report.output = pods.iter().filter_map(|pod| sizes.get(name_of(pod))).flatten().cloned().collect();
        report
    }
}

#[async_trait]
impl JobBackend for NodesBackend {
    fn capabilities(&self) -> JobCapabilities {
        JobCapabilities {
            version: "nodes of this cluster".to_owned(),
            suspend: true,
            arrays: true,
            dependencies: false,
            gpus: true,
            memory_limits: true,
            time_limits: true,
        }
    }

    async fn submit(&self, job: &JobRequest) -> JobResult<JobHandle> {
        if let Some(handle) = self.find(&job.id).await? {
            return Ok(handle);
        }
        pod::check(job, &self.config)?;
        self.make(job).await?;
        Ok(handle(&job.id, job.array.is_some()))
    }

    async fn find(&self, id: &JobId) -> JobResult<Option<JobHandle>> {
        let pods = self.pods_of(id).await?;
        let indices = judge::indices(&pods);
        // Of an array, the rest may not have been made.
        let whole = !pods.is_empty() && pods.len() >= indices.len();
        Ok(whole.then(|| handle(id, !indices.is_empty())))
    }

    async fn poll(&self, jobs: &[JobHandle]) -> JobResult<Vec<JobReport>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.select(format!("{CLUSTER}={}", self.config.cluster)).await?;
        let mut of_jobs: HashMap<String, Vec<Pod>> = jobs.iter().map(|job| (job.id.to_string(), Vec::new())).collect();
        for pod in all.into_iter().filter(is_kept) {
            if let Some(pods) = of_jobs.get_mut(job_of(&pod)) {
                pods.push(pod);
            }
        }
        let running: Vec<&Pod> = of_jobs.values().flatten().filter(|pod| is_running(pod)).collect();
        let sizes = self.sizes(&running).await;
        let mut reports = Vec::with_capacity(jobs.len());
        for job in jobs {
            let pods = of_jobs.get(&job.id.to_string()).map(Vec::as_slice).unwrap_or_default();
            reports.push(self.report(job, pods, &sizes).await);
        }
        Ok(reports)
    }

    async fn cancel(&self, id: &JobId) -> JobResult<()> {
        for pod in self.pods_of(id).await? {
            self.end(pod).await.map_err(error::odd)?;
        }
        Ok(())
    }

    async fn suspend(&self, job: &JobHandle, stop: bool) -> JobResult<()> {
        for pod in self.pods_of(&job.id).await?.iter().filter(|pod| !is_over(pod)) {
            let patch = json!({"metadata": {"uid": pod.metadata.uid, "annotations": {PAUSED: stop.then_some("true")}}});
            gone(self.api().patch(name_of(pod), PatchType::Merge, &patch).await).map_err(error::odd)?;
        }
        Ok(())
    }

    async fn files(&self, job: &JobHandle, patterns: &[String]) -> JobResult<Vec<FileInfo>> {
        self.found(job, patterns).await
    }

    async fn read(&self, job: &JobHandle, file: &FileName, from: u64, most: usize) -> JobResult<Bytes> {
        self.piece(job, file, from, most).await
    }

    async fn remove(&self, id: &JobId) -> JobResult<()> {
        for pod in self.pods_of(id).await? {
            let_go(&self.api(), pod).await.map_err(error::odd)?;
        }
        let label_selector = format!("{JOB}={id},{CLUSTER}={}", self.config.cluster);
        let options = ListOptions { label_selector, ..ListOptions::default() };
        let secrets = self.client.api::<Secret>(&self.config.namespace);
        secrets.delete_collection(&options, &DeleteOptions::default()).await.map(drop).map_err(error::odd)
    }

    async fn kept(&self) -> JobResult<Vec<JobId>> {
        let pods = self.select(format!("{CLUSTER}={}", self.config.cluster)).await?;
        let mut ids: Vec<JobId> =
            pods.iter().filter(|pod| is_kept(pod)).filter_map(|pod| JobId::parse(job_of(pod))).collect();
        ids.sort();
        ids.dedup();
        Ok(ids)
    }
}

/// What the names of an array's pods end with.
const EACH: &str = "-*";

/// An array goes by what its pods have in common.
fn handle(id: &JobId, array: bool) -> JobHandle {
    let whole = pod::name(id, None);
    JobHandle::new(id, if array { format!("{whole}{EACH}") } else { whole })
}

fn is_array(job: &JobHandle) -> bool {
    job.native.ends_with(EACH)
}
