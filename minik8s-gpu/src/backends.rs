//! From a `JobCluster` to what reaches it.

use crate::kinds::{JobCluster, JumpHost, SlurmSpec};
use crate::local::{LocalBackend, LocalConfig};
use crate::slurm::{SlurmBackend, SlurmConfig, SshConfig};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use minik8s_core::client::Client;
use minik8s_core::job::SharedJobBackend;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why a cluster cannot be reached as it is described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// One word.
    pub reason: &'static str,
    /// A sentence, with the way out.
    pub message: String,
}

/// Makes backends of clusters.
#[async_trait]
pub trait Backends: Send + Sync + 'static {
    /// The backend of a cluster. Keys are read anew each time.
    ///
    /// # Errors
    /// Where the description cannot work as it is.
    async fn open(&self, cluster: &JobCluster, client: &Client) -> Result<SharedJobBackend, Problem>;
}

/// Slurm over SSH, and processes of this machine.
pub struct StandardBackends {
    /// Where files of local jobs go.
    pub directory: PathBuf,
    /// Graphics processors of this machine, as [`local::discover`](crate::local::discover) finds them.
    pub gpus: Vec<String>,
}

impl StandardBackends {
    /// Those that this machine can have; files of local jobs go below `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), gpus: crate::local::discover("/dev".as_ref()) }
    }

    async fn slurm(&self, cluster: &JobCluster, slurm: &SlurmSpec, client: &Client) -> Result<SlurmConfig, Problem> {
        let port = |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok()).unwrap_or(22);
        let jump = |jump: &JumpHost| {
            (jump.host.clone(), port(jump.port), jump.user.clone().unwrap_or_else(|| slurm.user.clone()))
        };
        let ssh = SshConfig {
            host: slurm.host.clone(),
            port: port(slurm.port),
            user: slurm.user.clone(),
            key: key(cluster, slurm, client).await?,
            known_hosts: slurm.known_hosts.clone(),
            jumps: slurm.jump_hosts.iter().map(jump).collect(),
            channels: slurm.channels.and_then(|channels| usize::try_from(channels).ok()).unwrap_or(6),
            login_shell: slurm.login_shell.unwrap_or(false),
            connect: Duration::from_secs(20),
            command: Duration::from_secs(55),
        };
        // Several clusters may use one directory: each keeps below it what is its own, and removes nothing else.
        let own = cluster.metadata.uid.clone().unwrap_or_default();
        let root = format!("{}/{own}", slurm.root.as_deref().unwrap_or(".minik8s").trim_end_matches('/'));
        Ok(SlurmConfig::new(ssh, root))
    }
}

async fn key(cluster: &JobCluster, slurm: &SlurmSpec, client: &Client) -> Result<Vec<u8>, Problem> {
    let secrets = client.api::<Secret>(cluster.metadata.namespace.as_deref().unwrap_or_default());
    let unread =
        |error| Problem { reason: "SecretUnreadable", message: format!("Secret {}: {error}", slurm.key_secret) };
    let entry = secrets.get_opt(&slurm.key_secret).await.map_err(unread)?;
    let entry = entry.and_then(|secret| secret.data?.remove("ssh-privatekey"));
    entry.map(|bytes| bytes.0).ok_or_else(|| Problem {
        reason: "SecretNotFound",
        message: format!(
            "there is no Secret {:?} with an entry ssh-privatekey in this namespace: make one with \
             `kubectl create secret generic {} --type=kubernetes.io/ssh-auth --from-file=ssh-privatekey=FILE`",
            slurm.key_secret, slurm.key_secret
        ),
    })
}

#[async_trait]
impl Backends for StandardBackends {
    async fn open(&self, cluster: &JobCluster, client: &Client) -> Result<SharedJobBackend, Problem> {
        if let Some(slurm) = &cluster.spec.slurm {
            let config = self.slurm(cluster, slurm, client).await?;
            let failed = |error: std::io::Error| Problem {
                reason: "NoRuntimeDirectory",
                message: format!("the key cannot be put into a file for ssh: {error}"),
            };
            return Ok(Arc::new(SlurmBackend::new(config).map_err(failed)?));
        }
        let own = cluster.metadata.uid.clone().unwrap_or_default();
        let mut config = LocalConfig { gpus: self.gpus.clone(), ..LocalConfig::new(self.directory.join(own)) };
        let slots = cluster.spec.local.as_ref().and_then(|local| usize::try_from(local.slots?).ok());
        config.slots = slots.unwrap_or(config.slots);
        Ok(Arc::new(LocalBackend::new(config)))
    }
}
