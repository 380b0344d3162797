//! What `up` leaves in the data directory for `down`, and the lock that keeps two of them apart.

use super::node_manifest;
use crate::args::{NetworkKind, NodeOptions, RuntimeKind};
use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// How the cluster of a data directory was put together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) runtime: RuntimeKind,
    pub(crate) network: NetworkKind,
    /// The containerd that was named; `None` for the private one.
    pub(crate) containerd: Option<PathBuf>,
    pub(crate) node: String,
    /// Addresses of this machine's pods; `None` until the cluster has given it some.
    pub(crate) pod_cidr: Option<Ipv4Net>,
    pub(crate) service_cidr: Ipv4Net,
    /// Addresses of the pods of all machines, and this machine's own; `None` where there is no other machine.
    #[serde(default)]
    pub(crate) others: Option<Others>,
}

/// What a machine must know to reach the pods of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Others {
    pub(crate) cluster_cidr: Ipv4Net,
    pub(crate) address: Ipv4Addr,
}

impl Record {
    /// The record of a node with these options.
    pub(crate) fn new(options: &NodeOptions, pod_cidr: Option<Ipv4Net>, service_cidr: Ipv4Net) -> Result<Self> {
        Ok(Self {
            runtime: options.runtime,
            network: options.network,
            containerd: options.containerd.clone(),
            node: node_manifest::name(options)?,
            pod_cidr,
            service_cidr,
            others: None,
        })
    }

    fn path(data: &Path) -> PathBuf {
        data.join("instance.json")
    }

    pub(crate) fn read(data: &Path) -> Result<Option<Self>> {
        let path = Self::path(data);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let record =
                    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
                Ok(Some(record))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Written beside and renamed, so that no half of it is ever seen.
    pub(crate) fn write(&self, data: &Path) -> Result<()> {
        let (path, new) = (Self::path(data), data.join("instance.json.new"));
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn remove(data: &Path) -> Result<()> {
        match std::fs::remove_file(Self::path(data)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }
}

/// The right to run, or to remove, the cluster of a data directory. The kernel gives it back when the process ends.
pub(crate) struct Lock(Flock<File>);

impl Drop for Lock {
    /// A number that stays behind would be taken for that of the next one, who has the lock but did not write yet.
    fn drop(&mut self) {
        let _ = self.0.set_len(0);
    }
}

impl Lock {
    /// Takes the lock and writes our process id into it.
    pub(crate) fn take(data: &Path) -> Result<Self> {
        match Self::attempt(data)? {
            Ok(lock) => Ok(lock),
            Err(pid) => bail!(
                "the cluster of {} runs already, as process {pid}; stop it with `kill {pid}`, or choose another --data-dir",
                data.display()
            ),
        }
    }

    /// The lock, or the process id of who has it.
    pub(crate) fn attempt(data: &Path) -> Result<Result<Self, i32>> {
        let path = data.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0)?;
                file.rewind()?;
                write!(&mut *file, "{}", std::process::id())?;
                Ok(Ok(Self(file)))
            }
            // Read only now: before, it might have named who had it then.
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                Ok(Err(text.trim().parse().unwrap_or_default()))
            }
            Err((_, errno)) => Err(errno).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_cluster_on_the_same_data_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let refused = Lock::take(dir.path()).err().unwrap().to_string();
        assert!(refused.contains(&std::process::id().to_string()) && refused.contains("--data-dir"), "{refused}");
        drop(first);
        assert_eq!(std::fs::read_to_string(dir.path().join("lock")).unwrap(), "", "a number was left behind");
        assert!(Lock::take(dir.path()).is_ok());
    }
}
