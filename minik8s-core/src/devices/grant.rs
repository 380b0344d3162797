//! What a container gets with the devices that it is given.

use crate::runtime::{DeviceNode, Mount};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Where programs look for libraries before all else.
pub(super) const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// What a container gets with its devices. Everything once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Device nodes.
    pub devices: Vec<DeviceNode>,
    /// Files of the driver; read-only.
    pub mounts: Vec<Mount>,
    /// Variables, unless the container has its own of that name.
    pub env: Vec<(String, String)>,
    /// Directories that are added behind what a variable lists: the variable, and one directory.
    pub paths: Vec<(String, String)>,
}

impl Grant {
    pub(super) fn add_device(&mut self, node: DeviceNode) {
        if !self.devices.iter().any(|known| known.path == node.path) {
            self.devices.push(node);
        }
    }

    pub(super) fn add_mount(&mut self, source: &Path, target: &Path) {
        if !self.mounts.iter().any(|known| known.target == target) {
            let (source, target) = (source.to_owned(), target.to_owned());
            self.mounts.push(Mount { source, target, read_only: true, ..Mount::default() });
        }
    }

    pub(super) fn add_path(&mut self, variable: &str, directory: &str) {
        let new = (variable.to_owned(), directory.to_owned());
        if !self.paths.contains(&new) {
            self.paths.push(new);
        }
    }

    /// Libraries are linked against by shorter names than those of their files, which are links beside them.
    pub(super) fn add_aliases(&mut self) {
        for mount in self.mounts.clone() {
            let Some(place) = mount.target.parent() else { continue };
            for name in aliases(&mount.source) {
                self.add_mount(&mount.source, &place.join(name));
            }
        }
    }

    /// Leaves out what the container has arranged for itself: mounts at and below places where it has its own, and variables.
    pub fn beside(&mut self, mounts: &[Mount], env: &[(String, String)]) {
        self.mounts.retain(|ours| !mounts.iter().any(|own| ours.target.starts_with(&own.target)));
        self.env.retain(|(name, _)| !env.iter().any(|(own, _)| own == name));
    }
}

/// Names of links to a library that lie beside it: `libcuda.so.1` for `libcuda.so.550.54.14`.
pub(super) fn aliases(library: &Path) -> Vec<PathBuf> {
    let name = library.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let Some((stem, _)) = name.split_once(".so") else { return Vec::new() };
    let Some(directory) = library.parent() else { return Vec::new() };
    let real = std::fs::canonicalize(library).ok();
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let same = |entry: &std::fs::DirEntry| {
        let other = entry.file_name();
        let alike = other.to_str().and_then(|other| other.strip_prefix(stem)).is_some_and(|end| end.starts_with(".so"));
        alike && real.is_some() && std::fs::canonicalize(entry.path()).ok() == real
    };
    let mut names: Vec<PathBuf> = entries.filter(same).map(|entry| PathBuf::from(entry.file_name())).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_library_is_there_by_all_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("libcuda.so.550.1");
        std::fs::write(&real, "").unwrap();
        std::fs::write(dir.path().join("libcuda.so.440.9"), "").unwrap();
        std::fs::write(dir.path().join("libcudart.so.12"), "").unwrap();
        symlink("libcuda.so.550.1", dir.path().join("libcuda.so.1")).unwrap();
        symlink("libcuda.so.1", dir.path().join("libcuda.so")).unwrap();
        symlink("libcuda.so.1", dir.path().join("cuda")).unwrap();
        let mut grant = Grant::default();
        grant.add_mount(&real, Path::new("/lib/libcuda.so.550.1"));
        grant.add_aliases();
        grant.add_aliases();
        let targets: Vec<&str> = grant.mounts.iter().map(|mount| mount.target.to_str().unwrap()).collect();
        assert_eq!(targets, ["/lib/libcuda.so.550.1", "/lib/libcuda.so", "/lib/libcuda.so.1"]);
        assert!(grant.mounts.iter().all(|mount| mount.source == real && mount.read_only));
    }

    #[test]
    fn what_a_container_has_of_its_own_stays() {
        let mut grant = Grant::default();
        grant.add_mount(Path::new("/a"), Path::new("/usr/local/nvidia/lib64/a"));
        grant.add_mount(Path::new("/b"), Path::new("/opt/b"));
        grant.env = [("A", "1"), ("B", "2")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let own = Mount { target: PathBuf::from("/usr/local/nvidia"), ..Mount::default() };
        grant.beside(&[own], &[("A".to_owned(), "own".to_owned())]);
        assert_eq!((grant.mounts.len(), grant.mounts[0].target.to_str()), (1, Some("/opt/b")));
        assert_eq!(grant.env, [("B".to_owned(), "2".to_owned())]);
    }
}
