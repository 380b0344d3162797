//! What an earlier agent left on this machine: sandboxes, attachments, directories. Found once at the start; what has
//! a record is handed to its worker, the rest is ended.

use super::context::Context;
use super::ids;
use super::worker::Found;
use crate::blocking;
use crate::network::PodNetwork;
use crate::runtime::{ContainerInfo, Labels, SandboxInfo};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// The pods that have a record.
pub(crate) struct Roster(HashSet<String>);

impl Roster {
    pub(crate) fn new<'a>(uids: impl Iterator<Item = &'a str>) -> Self {
        Self(uids.map(str::to_owned).collect())
    }

    pub(crate) fn has(&self, uid: &str) -> bool {
        self.0.contains(uid)
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Remains {
    sandboxes: HashMap<String, SandboxInfo>,
    containers: Vec<ContainerInfo>,
    networks: HashMap<String, PodNetwork>,
}

impl Remains {
    /// Asks runtime and network until both answer.
    pub(crate) async fn find(context: &Context) -> Self {
        let mut failures = 0;
        loop {
            match Self::ask(context).await {
                Ok(remains) => return remains,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, "cannot find out what runs on this node");
                    tokio::time::sleep(context.retry.delay(failures)).await;
                }
            }
        }
    }

    async fn ask(context: &Context) -> Result<Self, String> {
        let sandboxes = context.runtime.sandboxes().await.map_err(|e| e.to_string())?;
        let containers = context.runtime.containers(None).await.map_err(|e| e.to_string())?;
        let networks = context.network.attachments().await.map_err(|e| e.to_string())?;
        Ok(Self {
            sandboxes: sandboxes.into_iter().map(|sandbox| (sandbox.spec.id.clone(), sandbox)).collect(),
            containers,
            networks: networks.into_iter().map(|network| (network.id.clone(), network)).collect(),
        })
    }

    /// What was found of a pod; the second time nothing.
    pub(crate) fn take(&mut self, uid: &str) -> Found {
        let ips = self.networks.remove(uid).map(|network| network.ips).unwrap_or_default();
        Found { sandbox: self.sandboxes.remove(uid), ips }
    }

    /// Pods that run without a record, as far as their labels tell.
    pub(crate) fn orphans(&self, roster: &Roster) -> Vec<Pod> {
        let mut names: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut labels: BTreeMap<&str, &Labels> = BTreeMap::new();
        for (uid, sandbox) in &self.sandboxes {
            names.entry(uid).or_default();
            labels.insert(uid, &sandbox.spec.labels);
        }
        for info in &self.containers {
            names.entry(&info.sandbox).or_default().insert(ids::name(info));
            labels.entry(&info.sandbox).or_insert(&info.labels);
        }
        let strays = names.into_iter().filter(|(uid, _)| !roster.has(uid));
        strays.map(|(uid, containers)| stand_in(uid, labels.get(uid).copied(), containers)).collect()
    }

    /// Gives back addresses and removes directories nobody uses.
    pub(crate) async fn sweep(&mut self, context: &Context, roster: &Roster) {
        let used = |uid: &str| roster.has(uid) || context.pods.get(uid).is_some();
        for uid in self.networks.keys().filter(|uid| !used(uid)) {
            if let Err(error) = context.network.detach(uid).await {
                tracing::warn!(uid, %error, "cannot give an address back");
            }
        }
        let mut stale: Vec<PathBuf> = unused(&context.config.pods_dir(), |name| used(name));
        stale.extend(unused(&context.config.logs_dir(), |name| name.rsplit('_').next().is_some_and(used)));
        for path in stale {
            if let Err(error) = context.runtime.unmount_below(&path).await {
                tracing::warn!(path = %path.display(), %error, "cannot unmount volumes nobody uses");
            }
            let removed = path.clone();
            let removed = blocking::run(move || std::fs::remove_dir_all(removed)).await;
            if let Err(error) = removed.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a directory nobody uses");
            }
        }
        *self = Self::default();
    }
}

/// A record for a pod that has none: enough to end it.
fn stand_in(uid: &str, labels: Option<&Labels>, containers: BTreeSet<&str>) -> Pod {
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).cloned();
    let named = |name: &&str| Container { name: (*name).to_owned(), ..Container::default() };
    Pod {
        metadata: ObjectMeta {
            uid: Some(uid.to_owned()),
            name: label(ids::POD_NAME),
            namespace: label(ids::POD_NAMESPACE),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { containers: containers.iter().map(named).collect(), ..PodSpec::default() }),
        status: None,
    }
}

fn unused(dir: &Path, used: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| !used(name)))
        .map(|entry| entry.path())
        .collect()
}
