//! How much an `emptyDir` may hold. In memory the file system itself has that size; on disk somebody has to look, as the
//! kubelet does, because the kernel limits only users and projects.

use super::Roots;
use crate::api::Quantity;
use crate::node::pod;
use crate::node::spec::{fs_group, pod_resources};
use crate::runtime::MemoryVolume;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The unit in which the kernel counts what files take.
const BLOCK: u64 = 512;

pub(super) fn in_memory(empty: &EmptyDirVolumeSource) -> bool {
    empty.medium.as_deref() == Some("Memory")
}

fn size_limit(empty: &EmptyDirVolumeSource) -> Option<u64> {
    let limit: Quantity = empty.size_limit.as_ref()?.0.parse().ok()?;
    u64::try_from(limit.value()).ok().filter(|bytes| *bytes > 0)
}

/// The pod's volumes in memory. Without a limit of their own they may take what the pod may.
pub(crate) fn memory(pod: &Pod, roots: &Roots) -> Vec<MemoryVolume> {
    let whole = u64::try_from(pod_resources(pod).memory_bytes).unwrap_or(0);
    let volumes = pod::spec(pod).volumes.iter().flatten();
    volumes
        .filter_map(|volume| Some((volume, volume.empty_dir.as_ref().filter(|empty| in_memory(empty))?)))
        .map(|(volume, empty)| MemoryVolume {
            directory: roots.source(volume),
            size: size_limit(empty).unwrap_or(whole),
            group: fs_group(pod),
        })
        .collect()
}

/// A volume on disk that may not grow beyond a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    volume: String,
    /// As the pod spells it.
    text: String,
    bytes: u64,
    directory: PathBuf,
}

/// The limits of the pod's volumes.
pub(crate) fn limits(pod: &Pod, roots: &Roots) -> Vec<Limit> {
    let volumes = pod::spec(pod).volumes.iter().flatten();
    volumes
        .filter_map(|volume| {
            let empty = volume.empty_dir.as_ref().filter(|empty| !in_memory(empty))?;
            Some(Limit {
                volume: volume.name.clone(),
                text: empty.size_limit.as_ref()?.0.clone(),
                bytes: size_limit(empty)?,
                directory: roots.source(volume),
            })
        })
        .collect()
}

impl Limit {
    /// What to tell where the volume has grown too large. Blocks.
    pub(crate) fn exceeded(&self) -> Option<String> {
        let (volume, limit) = (&self.volume, &self.text);
        let message = || format!("Usage of EmptyDir volume \"{volume}\" exceeds the limit \"{limit}\".");
        (usage(&self.directory) > self.bytes).then(message)
    }
}

/// What the files below a directory take on disk; each counts once, whatever its names. What vanishes meanwhile does not
/// count, and links are not followed.
fn usage(directory: &Path) -> u64 {
    let (mut sum, mut shared, mut ahead) = (0, HashSet::new(), vec![directory.to_owned()]);
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.nlink() < 2 || meta.is_dir() || shared.insert((meta.dev(), meta.ino())) {
                sum += meta.blocks() * BLOCK;
            }
            if meta.is_dir() {
                ahead.push(entry.path());
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(volumes: serde_json::Value, resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"spec": {"securityContext": {"fsGroup": 7}, "volumes": volumes,
            "containers": [{"name": "c", "resources": resources}]}}))
        .unwrap()
    }

    #[test]
    fn memory_has_the_size_of_its_limit_or_of_the_pod() {
        let volumes = json!([{"name": "a", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "b", "emptyDir": {"medium": "Memory"}}, {"name": "c", "emptyDir": {"sizeLimit": "2Ki"}}]);
        let roots = Roots { pod: "/pods/u".into() };
        let sizes =
            |resources| memory(&pod(volumes.clone(), resources), &roots).iter().map(|m| m.size).collect::<Vec<_>>();
        assert_eq!(sizes(json!({"limits": {"memory": "64Mi"}})), [1 << 20, 64 << 20]);
        assert_eq!(sizes(json!({})), [1 << 20, 0]);
        let pod = pod(volumes, json!({}));
        let first = MemoryVolume { directory: "/pods/u/volumes/a".into(), size: 1 << 20, group: Some(7) };
        assert_eq!(memory(&pod, &roots).first(), Some(&first));
        let disk: Vec<_> = limits(&pod, &roots).into_iter().map(|l| (l.volume, l.bytes)).collect();
        assert_eq!(disk, [("c".to_owned(), 2048)]);
    }

    #[test]
    fn usage_counts_blocks_and_each_file_once() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("v");
        let limit = |bytes| Limit { volume: "v".into(), text: "x".into(), bytes, directory: directory.clone() };
        assert_eq!(limit(0).exceeded(), None, "what is missing takes nothing");
        fs::create_dir_all(directory.join("deep")).unwrap();
        let before = usage(&directory);
        fs::write(directory.join("deep/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(directory.join("deep/file"), directory.join("same")).unwrap();
        std::os::unix::fs::symlink("/", directory.join("outside")).unwrap();
        let more = usage(&directory) - before;
        assert!((100_000..200_000).contains(&more), "{more}");
        assert!(limit(50_000).exceeded().unwrap().contains("\"v\" exceeds the limit \"x\""));
    }
}
