//! From a `JobCluster` to what reaches it.

use crate::kinds::{JobCluster, JumpHost, SlurmSpec};
use crate::local::{LocalBackend, LocalConfig};
use crate::nodes::{NodesBackend, NodesConfig};
use crate::slurm::{SlurmBackend, SlurmConfig, SshConfig};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use minik8s_core::client::Client;
use minik8s_core::job::SharedJobBackend;
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

/// Slurm over SSH, nodes of the cluster, and processes of this machine where its operator has allowed that.
pub struct StandardBackends {
    /// What this machine gives to jobs; `None` where it gives nothing.
    pub local: Option<LocalConfig>,
}

impl StandardBackends {
    /// Slurm over SSH and nodes of the cluster.
    pub fn remote() -> Self {
        Self { local: None }
    }

    /// Processes of this machine too. Each `JobCluster` has a directory of its own below the one of `config`; all share its
    /// graphics processors.
    pub fn with_local(config: LocalConfig) -> Self {
        Self { local: Some(config) }
    }

    fn local(&self, cluster: &JobCluster) -> Result<LocalConfig, Problem> {
        let Some(machine) = &self.local else {
            let message = "jobs as processes of the control plane's machine are not allowed: they run as the user it runs as. \
                 Whoever operates it allows them with `minik8s up --local-jobs`";
            return Err(Problem { reason: "LocalJobsOff", message: message.to_owned() });
        };
        let directory = machine.directory.join(cluster.metadata.uid.clone().unwrap_or_default());
        let slots = cluster.spec.local.as_ref().and_then(|local| usize::try_from(local.slots?).ok());
        Ok(LocalConfig { directory, slots: slots.unwrap_or(machine.slots), ..machine.clone() })
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
        if let Some(nodes) = &cluster.spec.nodes {
            let config = NodesConfig {
                namespace: cluster.metadata.namespace.clone().unwrap_or_default(),
                cluster: cluster.metadata.uid.clone().unwrap_or_default(),
                spec: nodes.clone(),
                patience: cluster.spec.lost_after(),
            };
            return Ok(Arc::new(NodesBackend::new(client.clone(), config)));
        }
        Ok(Arc::new(LocalBackend::new(self.local(cluster)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_core::devices::Devices;

    fn cluster(uid: &str) -> JobCluster {
        let mut cluster = JobCluster::default();
        cluster.metadata.uid = Some(uid.to_owned());
        cluster
    }

    #[test]
    fn processes_of_this_machine_are_allowed_by_its_operator_alone() {
        let problem = StandardBackends::remote().local(&cluster("a")).unwrap_err();
        assert!(problem.reason == "LocalJobsOff" && problem.message.contains("--local-jobs"), "{problem:?}");
        let devices = Devices::new("/nowhere/devices");
        let config = LocalConfig { devices, ..LocalConfig::new("/nowhere") };
        let allowed = StandardBackends::with_local(config);
        let (one, two) = (allowed.local(&cluster("a")).unwrap(), allowed.local(&cluster("b")).unwrap());
        assert_ne!(one.directory, two.directory);
        assert_eq!(one.devices, two.devices, "a processor is one job's, whichever cluster it is of");
    }
}
