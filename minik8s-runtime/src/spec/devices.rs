//! Devices of the host: all of them for privileged containers, those that are given for others.

use super::SpecError;
use minik8s_core::runtime::DeviceNode;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Directories of `/dev` that a container has of its own.
const OWN: &[&str] = &["pts", "shm", "mqueue", "fd", ".lxc", ".lxd-mounts", ".udev"];

/// Every device node below `/dev`, as the specification lists devices.
pub(crate) fn host_devices() -> Vec<Value> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), &mut found);
    found
}

/// Device nodes that a container is given.
pub(crate) fn given(nodes: &[DeviceNode]) -> Result<Vec<Value>, SpecError> {
    let one = |node: &DeviceNode| {
        let failed = |cause: String| SpecError::Device { path: node.host.clone(), cause };
        // A driver may have put a link there.
        let meta = fs::metadata(&node.host).map_err(|error| failed(error.to_string()))?;
        described(&node.path, &meta).ok_or_else(|| failed("it is no device".to_owned()))
    };
    nodes.iter().map(one).collect()
}

/// A device as the specification has it.
fn described(path: &Path, meta: &fs::Metadata) -> Option<Value> {
    let kind = meta.file_type();
    let letter = if kind.is_block_device() { "b" } else { "c" };
    let (major, minor) = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
    (kind.is_block_device() || kind.is_char_device()).then(|| {
        json!({
            "path": path, "type": letter, "major": major, "minor": minor,
            "fileMode": meta.mode() & 0o777, "uid": meta.uid(), "gid": meta.gid(),
        })
    })
}

fn collect(dir: &Path, found: &mut Vec<Value>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let kind = meta.file_type();
        if kind.is_dir() && !OWN.iter().any(|own| name == *own) {
            collect(&path, found);
        } else if name != "console" {
            found.extend(described(&path, &meta));
        }
    }
}
