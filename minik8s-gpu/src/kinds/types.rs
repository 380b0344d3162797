//! `GpuJob` as Rust types, and what both kinds are.

use super::cluster_types::{JobClusterSpec, JobClusterStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use serde::{Deserialize, Serialize};

/// The group of both kinds.
pub const GROUP: &str = "minik8s.io";
/// Their version.
pub const VERSION: &str = "v1alpha1";

/// A batch job, run on a [`JobCluster`] of its namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GpuJob {
    /// Names and the rest.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: GpuJobSpec,
    /// What is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<GpuJobStatus>,
}

/// Where jobs run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobCluster {
    /// Names and the rest.
    pub metadata: ObjectMeta,
    /// What it is.
    pub spec: JobClusterSpec,
    /// Whether it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<JobClusterStatus>,
}

minik8s_core::resource!(GpuJob, "minik8s.io", "v1alpha1", "GpuJob", "gpujobs", k8s_openapi::NamespaceResourceScope);
minik8s_core::resource!(
    JobCluster,
    "minik8s.io",
    "v1alpha1",
    "JobCluster",
    "jobclusters",
    k8s_openapi::NamespaceResourceScope
);

plain! {
    /// What a [`GpuJob`] wants.
    GpuJobSpec {
        /// The `JobCluster` it runs on, in its namespace.
        cluster: String,
        /// The image of its container, on nodes of this cluster.
        #[serde(skip_serializing_if = "Option::is_none")]
        image: Option<String>,
        /// Partition, or queue.
        #[serde(skip_serializing_if = "Option::is_none")]
        partition: Option<String>,
        /// Who pays.
        #[serde(skip_serializing_if = "Option::is_none")]
        account: Option<String>,
        /// Quality of service.
        #[serde(skip_serializing_if = "Option::is_none")]
        qos: Option<String>,
        /// Features that nodes must have.
        #[serde(skip_serializing_if = "Option::is_none")]
        constraint: Option<String>,
        /// Processes.
        #[serde(skip_serializing_if = "Option::is_none")]
        tasks: Option<i32>,
        /// How many of them on one node.
        #[serde(skip_serializing_if = "Option::is_none")]
        tasks_per_node: Option<i32>,
        /// Processors of each.
        #[serde(skip_serializing_if = "Option::is_none")]
        cpus_per_task: Option<i32>,
        /// Memory on each node, as a quantity.
        #[serde(skip_serializing_if = "Option::is_none")]
        memory: Option<String>,
        /// Graphics processors on each node.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpus: Option<GpuRequest>,
        /// How long it may run.
        #[serde(skip_serializing_if = "Option::is_none")]
        time_limit_seconds: Option<i64>,
        /// Tasks of an array: `0-9%2`.
        #[serde(skip_serializing_if = "Option::is_none")]
        array: Option<String>,
        /// Jobs of its namespace and cluster that it waits for.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        dependencies: Vec<JobDependency>,
        /// Environment modules.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        modules: Vec<String>,
        /// Environment variables.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        env: Vec<JobEnv>,
        /// The files it starts with.
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<JobSource>,
        /// Shell commands that come first.
        #[serde(skip_serializing_if = "Option::is_none")]
        compile: Option<String>,
        /// Shell commands.
        run: String,
        /// What its output is called at home.
        #[serde(skip_serializing_if = "Option::is_none")]
        output: Option<String>,
        /// What its errors are called at home.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Patterns of files that are fetched when it has ended.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        results: Vec<String>,
        /// How often it is tried again where it fails.
        #[serde(skip_serializing_if = "Option::is_none")]
        backoff_limit: Option<i32>,
        /// It is kept from starting, or stopped.
        #[serde(skip_serializing_if = "Option::is_none")]
        suspend: Option<bool>,
        /// It is ended; its object and output stay.
        #[serde(skip_serializing_if = "Option::is_none")]
        cancel: Option<bool>,
        /// Its object and output are deleted so long after its end.
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl_seconds_after_finished: Option<i64>,
    }
}

plain! {
    /// Graphics processors.
    GpuRequest {
        /// How many on each node.
        count: i32,
        /// Of which type.
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
    }
}

plain! {
    /// A job that another waits for.
    JobDependency {
        /// Its name.
        job: String,
        /// `Succeeded` (the default), `Failed` or `Ended`.
        condition: String,
    }
}

plain! {
    /// An environment variable.
    JobEnv {
        /// Its name.
        name: String,
        /// Its value.
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        /// Where its value is.
        #[serde(skip_serializing_if = "Option::is_none")]
        value_from: Option<JobEnvSource>,
    }
}

plain! {
    /// Where a value is: one of these.
    JobEnvSource {
        /// In a Secret.
        #[serde(skip_serializing_if = "Option::is_none")]
        secret_key_ref: Option<KeyReference>,
        /// In a ConfigMap.
        #[serde(skip_serializing_if = "Option::is_none")]
        config_map_key_ref: Option<KeyReference>,
    }
}

plain! {
    /// An entry of a ConfigMap or a Secret.
    KeyReference {
        /// The object.
        name: String,
        /// The entry.
        key: String,
    }
}

plain! {
    /// The files a job starts with: one of these.
    JobSource {
        /// Each entry of this ConfigMap is a file.
        #[serde(skip_serializing_if = "Option::is_none")]
        config_map: Option<String>,
        /// This entry of a ConfigMap, or of several, is a tar archive, gzipped or not.
        #[serde(skip_serializing_if = "Option::is_none")]
        archive: Option<ArchiveReference>,
    }
}

plain! {
    /// An archive in ConfigMaps.
    ArchiveReference {
        /// The ConfigMap; of one in parts, what their names begin with: `NAME-1`, `NAME-2`.
        name: String,
        /// The entry.
        key: String,
        /// In how many ConfigMaps it is, each of which has a piece of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        parts: Option<i32>,
        /// SHA-256 of the whole.
        #[serde(skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    }
}

/// Most ConfigMaps that an archive may be in.
pub const MOST_PARTS: i32 = 96;

impl ArchiveReference {
    /// The name of a part, counted from 1.
    pub fn part(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    /// The ConfigMaps it is in, in order.
    pub fn names(&self) -> Vec<String> {
        match self.parts.and_then(|parts| usize::try_from(parts).ok()) {
            None => vec![self.name.clone()],
            Some(parts) => (1..=parts).map(|number| self.part(number)).collect(),
        }
    }
}

plain! {
    /// What has become of a [`GpuJob`].
    GpuJobStatus {
        /// How far it is, in one word.
        phase: Phase,
        /// Which attempt this is about; 0 before the first.
        attempt: i32,
        /// What the batch system calls it.
        #[serde(skip_serializing_if = "Option::is_none")]
        job_id: Option<String>,
        /// Why it is where it is, in one word.
        #[serde(skip_serializing_if = "String::is_empty")]
        reason: String,
        /// The same as a sentence.
        #[serde(skip_serializing_if = "String::is_empty")]
        message: String,
        /// How its commands ended.
        #[serde(skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        /// How the attempt ended, from its end on.
        #[serde(skip_serializing_if = "Option::is_none")]
        end: Option<String>,
        /// Where it runs or ran.
        #[serde(skip_serializing_if = "String::is_empty")]
        nodes: String,
        /// The batch system's word for its state.
        #[serde(skip_serializing_if = "String::is_empty")]
        native_state: String,
        /// It is stopped, or kept from starting.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        stopped: bool,
        /// How often attempts failed, without those that others were to blame for.
        failures: i32,
        /// How often attempts failed that others were to blame for.
        disruptions: i32,
        /// Nodes that failed under it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        excluded_nodes: Vec<String>,
        /// When it was handed over first.
        #[serde(skip_serializing_if = "Option::is_none")]
        submitted_at: Option<Time>,
        /// When it will probably start.
        #[serde(skip_serializing_if = "Option::is_none")]
        start_estimate: Option<Time>,
        /// When the attempt started.
        #[serde(skip_serializing_if = "Option::is_none")]
        start_time: Option<Time>,
        /// When the job was done with.
        #[serde(skip_serializing_if = "Option::is_none")]
        completion_time: Option<Time>,
        /// The next attempt is not made before.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_at: Option<Time>,
        /// Its files at home.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        files: Vec<JobFile>,
        /// Tasks of its array, by their ends.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tasks: Vec<TaskStatus>,
        /// Submitted, Complete, Failed, OutputFetched, CleanedUp, ClusterAnswers.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        conditions: Vec<Condition>,
    }
}

/// How far a [`GpuJob`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing was handed over yet.
    #[default]
    Pending,
    /// It is being handed over; that may have happened already.
    Submitting,
    /// It waits in the batch system.
    Queued,
    /// It runs.
    Running,
    /// It is stopped.
    Suspended,
    /// It has ended, its files are on their way home.
    Fetching,
    /// Its files are here, what is left of it there is being removed.
    Cleaning,
    /// It ended well.
    Succeeded,
    /// It did not.
    Failed,
}

impl Phase {
    /// Its spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Submitting => "Submitting",
            Self::Queued => "Queued",
            Self::Running => "Running",
            Self::Suspended => "Suspended",
            Self::Fetching => "Fetching",
            Self::Cleaning => "Cleaning",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// True where nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }

    /// True while the batch system has it.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Suspended)
    }
}

plain! {
    /// A file of a job, at home.
    JobFile {
        /// `stdout`, `stderr`, `results/…`.
        name: String,
        /// Its size where the job ran.
        bytes: i64,
        /// SHA-256 of it there.
        sha256: String,
        /// Only its beginning is here, because the whole is larger than allowed.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    }
}

plain! {
    /// One task of an array.
    TaskStatus {
        /// Its number.
        index: i32,
        /// `Queued`, `Running`, or how it ended.
        state: String,
        /// How its commands ended.
        #[serde(skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    }
}
