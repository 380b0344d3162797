//! Paths inside volumes. A volume's content is the pod's, so a link in it may point anywhere: a sub-path is resolved
//! here, on the host, and refused where it leads out of the volume.
//!
//! The result is a plain path: a container that writes to the volume at that very moment could still swap a directory
//! for a link before the runtime mounts it. Kernels close that gap with descriptors, which runtimes do not take.

use super::{Fresh, VolumeError, VolumeResult, create_dir};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The real path of `path` below `root`. With `create`, missing directories are made, as that says.
pub(super) fn resolve(volume: &str, root: &Path, path: &str, create: Option<&Fresh>) -> VolumeResult<PathBuf> {
    let refuse = |why| VolumeError::SubPath { volume: volume.to_owned(), path: path.to_owned(), why };
    let io = |operation, path: &Path, source| VolumeError::Io {
        volume: volume.to_owned(),
        operation,
        path: path.into(),
        source,
    };
    let real_root = fs::canonicalize(root).map_err(|e| io("find", root, e))?;
    let mut at = real_root.clone();
    for part in Path::new(path).components() {
        let part = match part {
            Component::Normal(part) => part,
            Component::CurDir => continue,
            Component::ParentDir => return Err(refuse("must not contain \"..\"")),
            Component::RootDir | Component::Prefix(_) => return Err(refuse("must be relative")),
        };
        let next = at.join(part);
        // What a link points to may be missing, too; that must not be made, wherever it would be.
        let there = fs::symlink_metadata(&next).is_ok();
        match create {
            Some(fresh) if !there => {
                let made = create_dir(&next).and_then(|new| if new { fresh.dress(&next) } else { Ok(()) });
                made.map_err(|e| io("make", &next, e))?;
            }
            None if !there => return Err(refuse("does not exist in the volume")),
            _ => {}
        }
        at = fs::canonicalize(&next).map_err(|_| refuse("is a link to nowhere"))?;
        if !at.starts_with(&real_root) {
            return Err(refuse("leads out of the volume"));
        }
    }
    Ok(at)
}
