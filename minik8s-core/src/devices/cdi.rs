//! What a driver's own tools say that containers need for its devices: specifications of the Container Device Interface, as
//! `nvidia-ctk cdi generate` writes them. Pure but for [`read`].
//!
//! Nothing that a specification wants to be run is run. What the usual hooks do is done by mounts and a variable: a link is
//! the file itself under another name, and directories of libraries are named to the linker.

use super::grant::{Grant, LIBRARY_PATH};
use crate::runtime::{DeviceNode, Mount};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A specification.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    kind: String,
    devices: Vec<Device>,
    /// What all devices need.
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Device {
    name: String,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Bind>,
    hooks: Vec<Hook>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    path: PathBuf,
    host_path: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bind {
    host_path: PathBuf,
    container_path: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Hook {
    args: Vec<String>,
}

/// Specifications of a kind of device in these directories; one of a later directory comes first. What cannot be read is
/// passed over, and told.
pub(super) fn read(directories: &[PathBuf], kind: &str) -> Vec<Spec> {
    let mut found = Vec::new();
    for directory in directories.iter().rev() {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if !path.extension().and_then(|end| end.to_str()).is_some_and(|end| ["json", "yaml", "yml"].contains(&end))
            {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
            match text.and_then(|text| parse(&text)) {
                Ok(spec) if spec.kind == kind => found.push(spec),
                Ok(_) => {}
                Err(error) => tracing::warn!(path = %path.display(), error, "a device specification is passed over"),
            }
        }
    }
    found
}

/// Reads a specification; JSON is YAML too.
fn parse(text: &str) -> Result<Spec, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

impl Spec {
    /// What a container needs that is given these devices; `None` where the specification does not have all of them.
    pub(super) fn grant(&self, names: &[String]) -> Option<Grant> {
        let device = |name: &String| self.devices.iter().find(|device| device.name == *name);
        let own: Vec<&Device> = names.iter().map(device).collect::<Option<_>>()?;
        let all = own.iter().map(|device| &device.container_edits).chain([&self.container_edits]);
        let mut grant = Grant::default();
        let mut hooks = Vec::new();
        for edits in all {
            grant.env.extend(edits.env.iter().filter_map(|env| env.split_once('=')).map(pair));
            for node in &edits.device_nodes {
                let host = node.host_path.clone().unwrap_or_else(|| node.path.clone());
                grant.add_device(DeviceNode { host, path: node.path.clone() });
            }
            for bind in &edits.mounts {
                grant.add_mount(&bind.host_path, &bind.container_path);
            }
            hooks.extend(&edits.hooks);
        }
        grant.add_aliases();
        hooks.iter().for_each(|hook| follow(hook, &mut grant));
        Some(grant)
    }
}

fn pair((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Does what a hook would.
fn follow(hook: &Hook, grant: &mut Grant) {
    let values = |flag: &'static str| {
        let joined =
            hook.args.iter().filter_map(move |arg| arg.strip_prefix(flag)?.strip_prefix('=')).map(str::to_owned);
        let pairs = hook.args.windows(2).filter(move |pair| pair[0] == flag).map(|pair| pair[1].clone());
        pairs.chain(joined).collect::<Vec<String>>()
    };
    // Older ones are `nvidia-ctk hook update-ldcache …`.
    let word = hook.args.iter().skip(1).map(String::as_str).find(|word| *word != "hook");
    match word {
        Some("update-ldcache") => {
            values("--folder").into_iter().for_each(|folder| grant.add_path(LIBRARY_PATH, &folder));
        }
        Some("create-symlinks") => {
            values("--link").iter().filter_map(|link| link.split_once("::")).for_each(|link| alias(link, grant));
        }
        _ => {}
    }
}

/// A link to something that is mounted becomes another mount of that.
fn alias((target, link): (&str, &str), grant: &mut Grant) {
    let link = Path::new(link);
    let target = link.parent().unwrap_or(Path::new("/")).join(target);
    let found = grant.mounts.iter().find(|mount: &&Mount| mount.target == target).map(|mount| mount.source.clone());
    if let Some(source) = found {
        grant.add_mount(&source, link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the form that `nvidia-ctk` gives them.
    const GENERATED: &str = r#"
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
- name: "1"
  containerEdits:
    env: [MINE=1]
    deviceNodes:
    - {path: /dev/nvidia1, hostPath: /dev/other1, major: 195, permissions: rw}
- name: all
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  deviceNodes:
  - path: /dev/nvidiactl
  - path: /dev/nvidia1
  mounts:
  - hostPath: /none/libcuda.so.550.54.14
    containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.550.54.14
    options: [ro, nosuid, nodev, bind]
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args: [nvidia-cdi-hook, create-symlinks, --link, "libcuda.so.550.54.14::/usr/lib/x86_64-linux-gnu/libcuda.so.1", --link, "libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so", --link, "absent::/usr/lib/x"]
  - hookName: createContainer
    path: /usr/bin/nvidia-ctk
    args: [nvidia-ctk, hook, update-ldcache, --folder, /usr/lib/x86_64-linux-gnu, --folder=/usr/lib/other]
  - hookName: createContainer
    path: /bin/rm
    args: [rm, -rf, /]
"#;

    #[test]
    fn devices_have_what_is_their_own_and_what_all_need() {
        let spec = parse(GENERATED).unwrap();
        let grant = spec.grant(&["1".to_owned()]).unwrap();
        let nodes: Vec<(&str, &str)> =
            grant.devices.iter().map(|node| (node.path.to_str().unwrap(), node.host.to_str().unwrap())).collect();
        assert_eq!(nodes, [("/dev/nvidia1", "/dev/other1"), ("/dev/nvidiactl", "/dev/nvidiactl")]);
        let env: Vec<String> = grant.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["MINE=1", "NVIDIA_VISIBLE_DEVICES=void"]);
        let lib = "/usr/lib/x86_64-linux-gnu";
        let targets: Vec<&str> = grant.mounts.iter().map(|mount| mount.target.to_str().unwrap()).collect();
        let want = ["libcuda.so.550.54.14", "libcuda.so.1", "libcuda.so"].map(|name| format!("{lib}/{name}"));
        assert_eq!(targets, want);
        let one = Path::new("/none/libcuda.so.550.54.14");
        assert!(grant.mounts.iter().all(|mount| mount.source == one && mount.read_only));
        let paths: Vec<&str> = grant.paths.iter().map(|(_, path)| path.as_str()).collect();
        assert_eq!(paths, [lib, "/usr/lib/other"]);
        let two = spec.grant(&["0".to_owned(), "1".to_owned()]).unwrap();
        assert_eq!(two.devices.len(), 3, "each node once");
        assert!(spec.grant(&["0".to_owned(), "2".to_owned()]).is_none(), "one is not in it");
    }

    #[test]
    fn specifications_are_found_by_kind_the_last_directory_first_and_broken_ones_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        for (path, text) in [
            ("etc/a.yaml", GENERATED),
            ("etc/b.json", r#"{"kind": "example.com/fpga", "devices": [{"name": "0"}]}"#),
            ("etc/broken.json", "{"),
            ("etc/notes.txt", "kind: nvidia.com/gpu"),
            ("run/c.json", r#"{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [{"name": "7"}]}"#),
        ] {
            std::fs::create_dir_all(place(path).parent().unwrap()).unwrap();
            std::fs::write(place(path), text).unwrap();
        }
        let found = read(&[place("etc"), place("run"), place("none")], "nvidia.com/gpu");
        let names: Vec<&str> = found.iter().map(|spec| spec.devices[0].name.as_str()).collect();
        assert_eq!(names, ["7", "0"]);
    }
}
