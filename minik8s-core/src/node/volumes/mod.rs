//! Volumes: directories and files on this machine that containers see as mounts.
//!
//! Everything lies below the pod's own directory (`<data>/pods/<uid>/volumes/<name>`), or where a `hostPath` says.
//! Nothing here mounts anything: the runtime does, per container, and per pod for `medium: Memory`. So an agent killed at
//! any moment leaves only directories and mounts on them, which the next one finds by uid.

mod atomic;
mod contents;
mod host_path;
mod limits;
mod payload;
mod sub_path;
#[cfg(test)]
mod tests;

pub(crate) use contents::{files, inside, read};
pub(crate) use limits::{Limit, limits, memory};

use super::pod;
use super::spec::{Facts, Sources, fs_group};
use crate::runtime::Mount;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use rustix::fs::OFlags;
use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::{Path, PathBuf};

/// Why a volume cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum VolumeError {
    /// It takes its content from something that is not there.
    #[error("volume {volume:?}: {what}")]
    Missing { volume: String, what: String },
    /// The path on the host is not what the volume says it is.
    #[error("volume {volume:?}: hostPath {path:?} is not {wanted}")]
    HostPath { volume: String, path: String, wanted: &'static str },
    /// A kind of volume this agent does not have.
    #[error("volume {volume:?} is of a kind this node does not support: {kind}")]
    Unsupported { volume: String, kind: String },
    /// A path that leads out of its volume, or is malformed.
    #[error("subPath {path:?} of volume {volume:?} {why}")]
    SubPath { volume: String, path: String, why: &'static str },
    /// A mount names a volume the pod does not have.
    #[error("container {container:?} mounts volume {volume:?}, which the pod does not define")]
    Undefined { container: String, volume: String },
    /// Two at once would undo each other's work.
    #[error("cannot lock {path}, to write the pod's volumes alone")]
    Lock { path: PathBuf, source: io::Error },
    /// The machine refused.
    #[error("volume {volume:?}: cannot {operation} {path}")]
    Io { volume: String, operation: &'static str, path: PathBuf, source: io::Error },
}

pub(crate) type VolumeResult<T> = Result<T, VolumeError>;

/// Where the volumes of one pod lie.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    /// `<data>/pods/<uid>`
    pub(crate) pod: PathBuf,
}

impl Roots {
    /// Where all of them lie.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.pod.join("volumes")
    }

    /// The volume's root on this machine.
    fn source(&self, volume: &Volume) -> PathBuf {
        let own = || self.volumes().join(&volume.name);
        volume.host_path.as_ref().map_or_else(own, |host| PathBuf::from(&host.path))
    }

    fn lock_file(&self) -> PathBuf {
        self.pod.join("volumes.lock")
    }

    /// Waits until nobody else works on them: an agent that is gone may have left a thread at work. What is locked is a
    /// file that no container sees: anybody may lock what they can open, for as long as they like.
    fn alone(&self) -> io::Result<fs::File> {
        fs::create_dir_all(&self.pod)?;
        let file =
            fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.lock_file())?;
        file.lock()?;
        Ok(file)
    }

    /// Removes all that is the pod's and is not mounted. Missing is success.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.pod) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// Makes the pod's volumes, or brings their content up to date. Blocks.
pub(crate) fn set_up(pod: &Pod, roots: &Roots, sources: &Sources, facts: &Facts) -> VolumeResult<()> {
    let volumes: Vec<&Volume> = pod::spec(pod).volumes.iter().flatten().collect();
    if volumes.is_empty() {
        return Ok(());
    }
    let _alone = roots.alone().map_err(|source| VolumeError::Lock { path: roots.lock_file(), source })?;
    for volume in volumes {
        set_up_one(pod, volume, roots, sources, facts)?;
    }
    Ok(())
}

fn set_up_one(pod: &Pod, volume: &Volume, roots: &Roots, sources: &Sources, facts: &Facts) -> VolumeResult<()> {
    let root = roots.source(volume);
    if let Some(host) = &volume.host_path {
        return host_path::ensure(&volume.name, host);
    }
    if let Some(empty) = &volume.empty_dir {
        // What is there belongs to the containers, as does what is in memory from the start.
        if root.exists() || limits::in_memory(empty) {
            return Ok(());
        }
        return make_empty(&volume.name, &root, &Fresh::of_pod(pod));
    }
    let files = payload::files(pod, volume, sources, facts)?;
    make_dir(&volume.name, &root, &Fresh { mode: 0o755, group: None })?;
    let fail = |source| VolumeError::Io { volume: volume.name.clone(), operation: "write", path: root.clone(), source };
    atomic::write(&root, &files, fs_group(pod)).map_err(fail)
}

/// What a directory is made as.
struct Fresh {
    mode: u32,
    group: Option<u32>,
}

impl Fresh {
    /// Everyone's in the pod; what is made in it inherits the pod's group.
    fn of_pod(pod: &Pod) -> Self {
        let group = fs_group(pod);
        Self { mode: if group.is_some() { 0o2777 } else { 0o777 }, group }
    }

    /// As another directory is.
    fn like(dir: &Path) -> io::Result<Self> {
        Ok(Self { mode: fs::metadata(dir)?.permissions().mode() & 0o7777, group: None })
    }

    /// Through a descriptor: what a container puts in the place of the directory meanwhile stays as it is.
    fn dress(&self, dir: &Path) -> io::Result<()> {
        let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits();
        let dir = fs::OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(dir)?;
        if let Some(group) = self.group {
            tolerate(fchown(&dir, None, Some(group)))?;
        }
        dir.set_permissions(fs::Permissions::from_mode(self.mode))
    }
}

/// Makes a directory with its parents, or takes the one that is there.
fn make_dir(volume: &str, path: &Path, fresh: &Fresh) -> VolumeResult<()> {
    let fail = |source| VolumeError::Io { volume: volume.to_owned(), operation: "make", path: path.into(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    create_dir(path).and_then(|_| fresh.dress(path)).map_err(fail)
}

/// False where it is there already.
fn create_dir(path: &Path) -> io::Result<bool> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        result => result.map(|()| true),
    }
}

/// Appears at its place only as it should be; no volume has such a name as it has before.
fn make_empty(volume: &str, path: &Path, fresh: &Fresh) -> VolumeResult<()> {
    let beside = path.with_file_name(format!("..{volume}"));
    make_dir(volume, &beside, fresh)?;
    let fail = |source| VolumeError::Io { volume: volume.to_owned(), operation: "make", path: path.into(), source };
    fs::rename(&beside, path).map_err(fail)
}

fn chown_group(path: &Path, group: u32) -> io::Result<()> {
    tolerate(lchown(path, None, Some(group)))
}

/// Without root there is nobody to give anything to: then containers are not real, either.
fn tolerate(given: io::Result<()>) -> io::Result<()> {
    match given {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

/// The mounts of one container; `expand` resolves `subPathExpr`. Blocks.
pub(crate) fn mounts(
    pod: &Pod,
    container: &Container,
    roots: &Roots,
    expand: impl Fn(&str) -> VolumeResult<String>,
) -> VolumeResult<Vec<Mount>> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume =
            pod::spec(pod).volumes.iter().flatten().find(|v| v.name == mount.name).ok_or_else(|| {
                VolumeError::Undefined { container: container.name.clone(), volume: mount.name.clone() }
            })?;
        mounts.push(one_mount(pod, volume, mount, roots, &expand)?);
    }
    // An outer mount must not hide an inner one.
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

fn one_mount(
    pod: &Pod,
    volume: &Volume,
    mount: &VolumeMount,
    roots: &Roots,
    expand: &impl Fn(&str) -> VolumeResult<String>,
) -> VolumeResult<Mount> {
    let root = roots.source(volume);
    let path = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(text), _) if !text.is_empty() => expand(text)?,
        (_, Some(path)) => path.clone(),
        _ => String::new(),
    };
    let writable = volume.empty_dir.is_some() || volume.host_path.is_some();
    let source = if path.is_empty() {
        root
    } else {
        let fail =
            |source| VolumeError::Io { volume: volume.name.clone(), operation: "look at", path: root.clone(), source };
        let fresh = match volume.host_path {
            _ if !writable => None,
            // What is the host's stays the host's: it is like what it lies in.
            Some(_) => Some(Fresh::like(&root).map_err(fail)?),
            None => Some(Fresh::of_pod(pod)),
        };
        sub_path::resolve(&volume.name, &root, &path, fresh.as_ref())?
    };
    Ok(Mount {
        source,
        target: PathBuf::from(&mount.mount_path),
        // What the API writes, containers cannot.
        read_only: mount.read_only.unwrap_or(false) || !writable,
        propagate: matches!(mount.mount_propagation.as_deref(), Some("HostToContainer" | "Bidirectional")),
    })
}
