//! Devices of the host, for privileged containers.

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

fn collect(dir: &Path, found: &mut Vec<Value>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let kind = meta.file_type();
        if kind.is_dir() && !OWN.iter().any(|own| name == *own) {
            collect(&path, found);
        } else if (kind.is_block_device() || kind.is_char_device()) && name != "console" {
            let (major, minor) = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
            let letter = if kind.is_block_device() { "b" } else { "c" };
            found.push(json!({
                "path": path, "type": letter, "major": major, "minor": minor,
                "fileMode": meta.mode() & 0o777, "uid": meta.uid(), "gid": meta.gid(),
            }));
        }
    }
}
