//! The OCI runtime specification of a container: from image, container and sandbox to what runc reads. Pure.

mod devices;
mod mounts;
mod rootfs;
mod seccomp;
mod security;
mod user;

pub(crate) use devices::{given, host_devices};
pub(crate) use rootfs::{Accounts, read_accounts};
pub(crate) use user::{Identity, identify};

use crate::images::ImageConfig;
use crate::sandbox::Joined;
use minik8s_core::runtime::{ContainerSpec, Resources, Seccomp};
use oci_spec::runtime::Spec;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything a specification depends on.
pub(crate) struct Input<'a> {
    pub(crate) image: &'a ImageConfig,
    pub(crate) container: &'a ContainerSpec,
    pub(crate) identity: &'a Identity,
    pub(crate) joined: &'a Joined,
    pub(crate) hostname: &'a str,
    /// Shown as `/etc/hostname` where the agent brings none.
    pub(crate) hostname_file: Option<PathBuf>,
    pub(crate) host_pid: bool,
    pub(crate) cgroup: &'a str,
    pub(crate) cgroup_v2: bool,
    pub(crate) lowest_oom_score: i32,
    /// Text of the seccomp profile, where the container names a file.
    pub(crate) profile: Option<Vec<u8>>,
    /// Devices of the host, for privileged containers.
    pub(crate) host_devices: Vec<Value>,
    /// Devices that it is given.
    pub(crate) devices: Vec<Value>,
}

/// Why there can be no specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("no command: neither the container nor the image says what to run")]
    NoCommand,
    #[error("unknown user {0:?}: the image's /etc/passwd does not have it")]
    UnknownUser(String),
    #[error("unknown group {0:?}: the image's /etc/group does not have it")]
    UnknownGroup(String),
    #[error("user or group id {0} is out of range")]
    IdRange(i64),
    #[error("container must not run as root, but its user is root")]
    Root,
    #[error("working directory {0:?} is not an absolute path")]
    WorkingDir(String),
    #[error("unusable seccomp profile {path}: {cause}")]
    Seccomp { path: PathBuf, cause: String },
    #[error("device {path} cannot be given: {cause}")]
    Device { path: PathBuf, cause: String },
    #[error("specification: {0}")]
    Shape(String),
}

pub(crate) fn build(input: &Input<'_>) -> Result<Spec, SpecError> {
    let security = &input.container.security;
    let privileged = security.privileged;
    let devices = [input.host_devices.as_slice(), input.devices.as_slice()].concat();
    let mut linux = json!({
        "cgroupsPath": input.cgroup,
        "namespaces": namespaces(input),
        "resources": resources(&input.container.resources, privileged, &input.devices),
        "devices": devices,
        "maskedPaths": if privileged { &[][..] } else { security::MASKED },
        "readonlyPaths": if privileged { &[][..] } else { security::READ_ONLY },
    });
    if input.container.mounts.iter().any(|m| m.propagate) {
        linux["rootfsPropagation"] = json!("rslave");
    }
    if let Some(filter) = filter(input)? {
        linux["seccomp"] = filter;
    }
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": process(input)?,
        "root": {"path": "rootfs", "readonly": security.read_only_root},
        "mounts": mounts::all(input),
        "linux": linux,
    });
    serde_json::from_value(spec).map_err(|e| SpecError::Shape(e.to_string()))
}

/// The filter of system calls. Privileged containers have none.
fn filter(input: &Input<'_>) -> Result<Option<Value>, SpecError> {
    let security = &input.container.security;
    match &security.seccomp {
        _ if security.privileged => Ok(None),
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => Ok(Some(seccomp::runtime_default(&security::capabilities(security)))),
        Seccomp::Profile(path) => {
            let wrong = |cause: String| SpecError::Seccomp { path: path.clone(), cause };
            let text = input.profile.as_deref().unwrap_or_default();
            let filter: Value = serde_json::from_slice(text).map_err(|e| wrong(e.to_string()))?;
            // Checked here, where it can be told apart from everything else that may be wrong.
            oci_spec::runtime::LinuxSeccomp::deserialize(&filter).map_err(|e| wrong(e.to_string()))?;
            Ok(Some(filter))
        }
    }
}

fn process(input: &Input<'_>) -> Result<Value, SpecError> {
    let (container, image) = (input.container, &input.image.config);
    let identity = input.identity;
    if container.security.run_as_non_root && identity.uid == 0 {
        return Err(SpecError::Root);
    }
    let caps = security::capabilities(&container.security);
    let effective: &[String] = if identity.uid == 0 || container.security.privileged { &caps } else { &[] };
    Ok(json!({
        "terminal": container.tty,
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups},
        "args": args(container, image)?,
        "env": environment(input),
        "cwd": working_dir(&container.working_dir, &image.working_dir)?,
        "capabilities": {"bounding": caps, "effective": effective, "permitted": effective},
        "noNewPrivileges": container.security.no_new_privileges,
        "oomScoreAdj": container.resources.oom_score_adj.max(input.lowest_oom_score),
    }))
}

/// A command replaces entry point and arguments of the image; arguments alone replace only its arguments.
fn args(container: &ContainerSpec, image: &crate::images::Execution) -> Result<Vec<String>, SpecError> {
    let own = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let mut args = if container.command.is_empty() { own(&image.entrypoint) } else { container.command.clone() };
    if container.command.is_empty() && container.args.is_empty() {
        args.extend(own(&image.cmd));
    } else {
        args.extend(container.args.iter().cloned());
    }
    if args.first().is_none_or(String::is_empty) { Err(SpecError::NoCommand) } else { Ok(args) }
}

fn working_dir(own: &str, image: &str) -> Result<String, SpecError> {
    let dir = if own.is_empty() { image } else { own };
    match dir {
        "" => Ok("/".to_owned()),
        _ if dir.starts_with('/') => Ok(dir.to_owned()),
        _ => Err(SpecError::WorkingDir(dir.to_owned())),
    }
}

/// Later settings of a name replace earlier ones in place.
fn environment(input: &Input<'_>) -> Vec<String> {
    let image = input.image.config.env.clone().unwrap_or_default();
    let first = [DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", input.hostname)];
    let term = input.container.tty.then(|| "TERM=xterm".to_owned());
    let own = input.container.env.iter().map(|(name, value)| format!("{name}={value}"));
    let mut env: Vec<String> = Vec::new();
    for entry in first.into_iter().chain(term).chain(image).chain(own) {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        match env.iter_mut().find(|e| e.split_once('=').is_some_and(|(n, _)| n == name)) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
    }
    input.container.paths.iter().for_each(|(variable, directory)| extend(&mut env, variable, directory));
    env
}

/// Adds a directory behind what a variable lists. An empty part of a list would mean the working directory.
fn extend(env: &mut Vec<String>, variable: &str, directory: &str) {
    match env.iter_mut().find(|entry| entry.split_once('=').is_some_and(|(name, _)| name == variable)) {
        Some(old) if old.ends_with('=') => old.push_str(directory),
        Some(old) => *old = format!("{old}:{directory}"),
        None => env.push(format!("{variable}={directory}")),
    }
}

fn namespaces(input: &Input<'_>) -> Vec<Value> {
    let joined = input.joined;
    let mut all = vec![json!({"type": "mount"})];
    for (kind, path) in [("network", &joined.net), ("ipc", &joined.ipc), ("uts", &joined.uts)] {
        all.extend(path.as_ref().map(|p| json!({"type": kind, "path": p})));
    }
    match &joined.pid {
        Some(path) => all.push(json!({"type": "pid", "path": path})),
        None if !input.host_pid => all.push(json!({"type": "pid"})),
        None => {}
    }
    if input.cgroup_v2 && !input.container.security.privileged {
        all.push(json!({"type": "cgroup"}));
    }
    all
}

/// runc adds the usual devices to what is allowed, and converts shares to weights where the machine wants them.
fn resources(r: &Resources, privileged: bool, given: &[Value]) -> Value {
    let mut rules = vec![json!({"allow": privileged, "access": "rwm"})];
    let allowed = |device: &Value| {
        json!({
            "allow": true, "type": device["type"], "major": device["major"], "minor": device["minor"], "access": "rwm",
        })
    };
    rules.extend(given.iter().map(allowed));
    let mut out = json!({"devices": rules});
    if r.cpu_shares > 0 {
        out["cpu"]["shares"] = json!(r.cpu_shares);
    }
    if r.cpu_quota_us > 0 {
        out["cpu"]["quota"] = json!(r.cpu_quota_us);
        out["cpu"]["period"] = json!(if r.cpu_period_us == 0 { 100_000 } else { r.cpu_period_us });
    }
    if r.memory_bytes > 0 {
        out["memory"] = json!({"limit": r.memory_bytes, "swap": r.memory_bytes});
    }
    out
}

#[cfg(test)]
mod tests;
