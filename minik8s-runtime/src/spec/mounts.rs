//! What is mounted into a container: the kernel's file systems, the pod's shared ones, the agent's.

use super::Input;
use minik8s_core::runtime::Mount;
use serde_json::{Value, json};
use std::path::Path;

fn entry(target: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": target, "type": kind, "source": source, "options": options})
}

pub(super) fn all(input: &Input<'_>) -> Vec<Value> {
    let privileged = input.container.security.privileged;
    let brings = |target: &str| input.container.mounts.iter().any(|m| m.target == Path::new(target));
    let writable = if privileged { "rw" } else { "ro" };
    let mut out = vec![
        entry("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        entry("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        entry(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        entry("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        entry("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", writable]),
        entry("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", writable]),
    ];
    if !brings("/dev/shm") {
        let shm = input.joined.shm.as_deref().unwrap_or(Path::new("/dev/shm"));
        out.push(json!({"destination": "/dev/shm", "type": "bind", "source": shm, "options": ["rbind", "rw"]}));
    }
    if let Some(file) = input.hostname_file.as_ref().filter(|_| !brings("/etc/hostname")) {
        let options = ["rbind", "rprivate", if input.container.security.read_only_root { "ro" } else { "rw" }];
        out.push(json!({"destination": "/etc/hostname", "type": "bind", "source": file, "options": options}));
    }
    // A mount below another one's target has to come after it.
    let mut own: Vec<&Mount> = input.container.mounts.iter().collect();
    own.sort_by_key(|m| m.target.components().count());
    out.extend(own.into_iter().map(bind));
    out
}

fn bind(mount: &Mount) -> Value {
    let access = if mount.read_only { "ro" } else { "rw" };
    let propagation = if mount.propagate { "rslave" } else { "rprivate" };
    json!({
        "destination": mount.target,
        "type": "bind",
        "source": mount.source,
        "options": ["rbind", propagation, access],
    })
}
