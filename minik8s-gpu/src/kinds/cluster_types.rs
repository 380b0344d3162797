//! What a `JobCluster` is made of, as Rust types.

use k8s_openapi::api::core::v1::{LocalObjectReference, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

plain! {
    /// What a `JobCluster` is: one of `slurm`, `nodes` and `local`.
    JobClusterSpec {
        /// A machine with Slurm, reached over SSH.
        #[serde(skip_serializing_if = "Option::is_none")]
        slurm: Option<SlurmSpec>,
        /// Nodes of this cluster, where jobs are pods.
        #[serde(skip_serializing_if = "Option::is_none")]
        nodes: Option<NodesSpec>,
        /// The machine the control plane runs on.
        #[serde(skip_serializing_if = "Option::is_none")]
        local: Option<LocalSpec>,
        /// How often jobs are asked about, in seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        poll_seconds: Option<f64>,
        /// A job that the batch system does not know any more is given up after so long.
        #[serde(skip_serializing_if = "Option::is_none")]
        lost_after_seconds: Option<i64>,
        /// What jobs may take.
        #[serde(skip_serializing_if = "Option::is_none")]
        limits: Option<ClusterLimits>,
    }
}

impl JobClusterSpec {
    /// After how long a job that is not known any more is given up, and with it a node that is silent.
    pub(crate) fn lost_after(&self) -> Duration {
        Duration::from_secs(self.lost_after_seconds.unwrap_or(90).unsigned_abs())
    }
}

plain! {
    /// A machine with Slurm, reached over SSH.
    SlurmSpec {
        /// Its name or address.
        host: String,
        /// Its port; 22 if nothing is said.
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<i32>,
        /// Who we are there.
        user: String,
        /// The Secret with our key, as `ssh-privatekey`.
        key_secret: String,
        /// Its keys, and those of hosts on the way, as lines of `known_hosts`.
        known_hosts: String,
        /// Hosts on the way, the first one first.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        jump_hosts: Vec<JumpHost>,
        /// Where files of jobs go, from the user's home directory if it is relative; `.minik8s` if nothing is said.
        #[serde(skip_serializing_if = "Option::is_none")]
        root: Option<String>,
        /// Slurm's commands are only found by a login shell.
        #[serde(skip_serializing_if = "Option::is_none")]
        login_shell: Option<bool>,
        /// Commands at a time.
        #[serde(skip_serializing_if = "Option::is_none")]
        channels: Option<i32>,
    }
}

plain! {
    /// A host on the way.
    JumpHost {
        /// Its name or address.
        host: String,
        /// Its port.
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<i32>,
        /// Who we are there.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    }
}

plain! {
    /// Nodes of this cluster, where jobs are pods.
    NodesSpec {
        /// The image of jobs that name none.
        #[serde(skip_serializing_if = "Option::is_none")]
        image: Option<String>,
        /// Secrets that its registry wants.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        image_pull_secrets: Vec<LocalObjectReference>,
        /// Labels that nodes must have.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        node_selector: BTreeMap<String, String>,
        /// Taints of nodes that jobs bear.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tolerations: Vec<Toleration>,
        /// How important jobs are beside other pods.
        #[serde(skip_serializing_if = "Option::is_none")]
        priority_class_name: Option<String>,
    }
}

plain! {
    /// The machine the control plane runs on.
    LocalSpec {
        /// Jobs at a time; as many as there are processors if nothing is said.
        #[serde(skip_serializing_if = "Option::is_none")]
        slots: Option<i32>,
    }
}

plain! {
    /// What jobs of a cluster may take.
    ClusterLimits {
        /// Jobs handed over at a time.
        #[serde(skip_serializing_if = "Option::is_none")]
        jobs: Option<i32>,
        /// Graphics processors of one job, on each node.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpus: Option<i32>,
        /// Bytes of output that are kept of one file; 64 MiB if nothing is said.
        #[serde(skip_serializing_if = "Option::is_none")]
        output_bytes: Option<i64>,
        /// Bytes of results that are kept of one job; 1 GiB if nothing is said.
        #[serde(skip_serializing_if = "Option::is_none")]
        result_bytes: Option<i64>,
        /// Bytes of source; 64 MiB if nothing is said.
        #[serde(skip_serializing_if = "Option::is_none")]
        source_bytes: Option<i64>,
    }
}

plain! {
    /// Whether a `JobCluster` answers.
    JobClusterStatus {
        /// What it runs.
        #[serde(skip_serializing_if = "String::is_empty")]
        version: String,
        /// `Ready`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        conditions: Vec<Condition>,
    }
}
