//! Starting one life of a container: image, specification, files, process, hook.

use super::devices;
use super::ops::{Done, blocking, chain, sources, words_file};
use crate::node::context::Context;
use crate::node::images::{self, StartError};
use crate::node::spec::{
    ContainerInput, Facts, SeccompRules, Sources, container_spec, expanded_sub_path, hostname, hosts_file, resolv_conf,
};
use crate::node::volumes::{self, VolumeError};
use crate::node::{hooks, pod, probe};
use crate::runtime::{ContainerSpec, ImageInfo, Mount, RuntimeError};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A hook has no time of its own; this is a day, that is: until the pod ends.
const HOOK_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// What is to be started.
pub(super) struct Plan {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) container: String,
    pub(super) attempt: u32,
    pub(super) step: u32,
    pub(super) ips: Vec<IpAddr>,
    pub(super) stop: CancellationToken,
}

/// A container that runs.
pub(super) struct Started {
    pub(super) id: String,
    pub(super) image_id: String,
}

/// A container that does not.
pub(super) enum NotStarted {
    /// The pod ends: nothing failed.
    Cancelled,
    /// The sandbox is not there any more.
    NoSandbox,
    Error(StartError),
}

impl From<StartError> for NotStarted {
    fn from(error: StartError) -> Self {
        Self::Error(error)
    }
}

fn config(message: impl Into<String>) -> StartError {
    StartError::new("CreateContainerConfigError", message)
}

impl Plan {
    pub(super) async fn run(self) -> Done {
        let result = self.start().await;
        if let Err(NotStarted::Error(error)) = &result {
            tracing::info!(
                pod = pod::key(&self.pod),
                container = self.container,
                reason = error.reason,
                error = error.message,
                "container not started"
            );
        }
        Done::Started { container: self.container, result }
    }

    async fn start(&self) -> Result<Started, NotStarted> {
        let (_, container) =
            pod::find(&self.pod, &self.container).ok_or_else(|| config("the pod has no such container"))?;
        let fetch = async {
            let sources = sources(&self.context, &self.pod).await?;
            let secrets: Vec<_> = self.pull_secrets(&sources);
            let image = images::ensure(&self.context, &self.pod, container, &secrets).await?;
            Ok::<_, StartError>((sources, image))
        };
        let (sources, image) = self.stop.run_until_cancelled(fetch).await.ok_or(NotStarted::Cancelled)??;
        self.may_run_as(container, &image).inspect_err(|e| self.context.warning(&self.pod, "Failed", &e.message))?;
        let spec = self
            .specify(sources)
            .await
            .inspect_err(|e| self.context.warning(&self.pod, "Failed", format!("Error: {}", e.message)))?;
        self.launch(&spec).await?;
        self.greet(container, &spec.id).await?;
        let image_id = image.repo_digests.into_iter().next().unwrap_or(image.id);
        Ok(Started { id: spec.id, image_id })
    }

    fn pull_secrets(&self, sources: &Sources) -> Vec<Arc<k8s_openapi::api::core::v1::Secret>> {
        let names = pod::spec(&self.pod).image_pull_secrets.iter().flatten();
        names.filter_map(|reference| sources.secrets.get(&reference.name).cloned()).collect()
    }

    /// `runAsNonRoot` holds for the user the process will have.
    fn may_run_as(&self, container: &Container, image: &ImageInfo) -> Result<(), StartError> {
        let own = container.security_context.as_ref();
        let whole = pod::spec(&self.pod).security_context.as_ref();
        let must = own.and_then(|c| c.run_as_non_root).or(whole.and_then(|c| c.run_as_non_root)) == Some(true);
        let user = own.and_then(|c| c.run_as_user).or(whole.and_then(|c| c.run_as_user));
        let names = format!("pod: {:?}, container: {}", pod::key(&self.pod), container.name);
        let image_user = image.user.split(':').next().unwrap_or_default();
        match user {
            _ if !must => Ok(()),
            Some(0) => Err(config(format!("container's runAsUser breaks non-root policy ({names})"))),
            None if matches!(image_user, "" | "0" | "root") => {
                Err(config(format!("container has runAsNonRoot and image will run as root ({names})")))
            }
            None if image_user.parse::<i64>().is_err() => Err(config(format!(
                "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root ({names})"
            ))),
            _ => Ok(()),
        }
    }

    /// Everything the runtime needs, with the files it will mount.
    async fn specify(&self, sources: Sources) -> Result<ContainerSpec, StartError> {
        let (context, pod, name) = (self.context.clone(), self.pod.clone(), self.container.clone());
        let (attempt, step, ips) = (self.attempt, self.step, self.ips.clone());
        let work = move || {
            let (_, container) = pod::find(&pod, &name).ok_or_else(|| config("the pod has no such container"))?;
            let logs = context.pod_logs(pod::namespace(&pod), pod::name(&pod), pod::uid(&pod));
            let facts: Facts = context.facts(ips.clone());
            let input = ContainerInput {
                pod: &pod,
                container,
                attempt,
                step,
                sources: &sources,
                facts: &facts,
                log_path: logs.join(&name).join(format!("{attempt}.log")),
                log_max_bytes: context.config.log_max_bytes,
                log_max_files: context.config.log_max_files,
                seccomp: SeccompRules {
                    profiles: &context.config.seccomp_profiles,
                    by_default: context.config.seccomp_default,
                },
            };
            let mounts = mounts(&context, &input, &ips)?;
            let mut spec = container_spec(&input, mounts).map_err(|e| config(e.to_string()))?;
            devices::give(&context, &pod, container, &mut spec)?;
            make_parent(&spec.log_path).map_err(|e| config(e.to_string()))?;
            forget_old_logs(&spec.log_path, attempt);
            Ok(spec)
        };
        blocking(work).await.map_err(config)?
    }

    async fn launch(&self, spec: &ContainerSpec) -> Result<(), NotStarted> {
        let (context, uid) = (&self.context, pod::uid(&self.pod));
        match context.runtime.create_container(uid, spec).await {
            Ok(()) => context.normal(&self.pod, "Created", format!("Created container: {}", self.container)),
            Err(RuntimeError::NotFound { what: "sandbox", .. }) => return Err(NotStarted::NoSandbox),
            Err(error) => return Err(self.failed("CreateContainerError", &error).into()),
        }
        match context.runtime.start_container(&spec.id).await {
            Ok(()) => context.normal(&self.pod, "Started", format!("Started container {}", self.container)),
            // An agent that died here had started it already, and it has ended since.
            Err(RuntimeError::WrongState { state: "exited", .. }) => {}
            Err(error) => return Err(self.failed("RunContainerError", &error).into()),
        }
        Ok(())
    }

    fn failed(&self, reason: &'static str, error: &RuntimeError) -> StartError {
        let message = error.to_string();
        self.context.warning(&self.pod, "Failed", format!("Error: {message}"));
        StartError::new(reason, message)
    }

    /// Runs the hook after the start; a container whose hook fails is killed.
    async fn greet(&self, container: &Container, id: &str) -> Result<(), NotStarted> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return Ok(()) };
        let place = probe::Place::new(self.ips.first().copied(), container);
        let run = hooks::run(&self.context, id, hook, &place, HOOK_LIMIT);
        let Some(Err(why)) = self.stop.run_until_cancelled(run).await else { return Ok(()) };
        let message = format!("PostStartHook of container {} failed: {why}", container.name);
        self.context.warning(&self.pod, "FailedPostStartHook", message.clone());
        let grace = Duration::from_secs(pod::grace_seconds(&self.pod));
        let _ = self.context.runtime.stop_container(id, grace).await;
        Err(StartError::new("PostStartHookError", message).into())
    }
}

/// The pod's volumes, and the files every container gets where it does not bring its own.
fn mounts(context: &Context, input: &ContainerInput<'_>, ips: &[IpAddr]) -> Result<Vec<Mount>, StartError> {
    let (pod, container) = (input.pod, input.container);
    let roots = context.roots(pod::uid(pod));
    let expand = |text: &str| {
        expanded_sub_path(input, text)
            .map_err(|e| VolumeError::Missing { volume: text.to_owned(), what: e.to_string() })
    };
    let mut mounts = volumes::mounts(pod, container, &roots, expand).map_err(|e| config(chain(&e)))?;
    let words = words_file(context, pod::uid(pod), &container.name, input.attempt);
    let words_target = container.termination_message_path.clone().filter(|p| !p.is_empty());
    let files = name_files(context, pod, &roots.pod, ips).and_then(|mut files| {
        write(&words, "", 0o666)?;
        files.push((words, words_target.unwrap_or_else(|| "/dev/termination-log".to_owned())));
        Ok(files)
    });
    for (source, target) in files.map_err(|e| config(e.to_string()))? {
        let target = PathBuf::from(target);
        if !mounts.iter().any(|mount| mount.target == target) {
            mounts.push(Mount { source, target, read_only: false, propagate: false });
        }
    }
    Ok(mounts)
}

fn name_files(context: &Context, pod: &Pod, dir: &Path, ips: &[IpAddr]) -> std::io::Result<Vec<(PathBuf, String)>> {
    let dns = context.network.dns();
    let host_network = pod::spec(pod).host_network == Some(true);
    let host_hosts = host_network.then(|| std::fs::read_to_string("/etc/hosts").unwrap_or_default());
    let host_resolv = std::fs::read_to_string(&context.config.resolv_conf).unwrap_or_default();
    let host_name = if host_network { context.config.hostname.clone() } else { hostname(pod) };
    let files = [
        ("etc-hosts", "/etc/hosts", hosts_file(pod, ips, host_hosts.as_deref(), &dns.domain)),
        ("resolv.conf", "/etc/resolv.conf", resolv_conf(pod, &dns, &host_resolv)),
        ("hostname", "/etc/hostname", format!("{host_name}\n")),
    ];
    let mut made = Vec::new();
    for (name, target, text) in files {
        let path = dir.join(name);
        write(&path, &text, 0o644)?;
        made.push((path, target.to_owned()));
    }
    Ok(made)
}

/// Writes a file in place: it may be mounted into containers already, so it must stay the same file.
fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    make_parent(path)?;
    // Containers write to it, too: it may have any length.
    let length = std::fs::metadata(path).map(|meta| meta.len());
    if length.is_ok_and(|length| length == text.len() as u64)
        && std::fs::read_to_string(path).is_ok_and(|there| there == text)
    {
        return Ok(());
    }
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn make_parent(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}

/// Logs of the present life and the one before are kept.
fn forget_old_logs(log: &Path, attempt: u32) {
    let Some(entries) = log.parent().and_then(|dir| std::fs::read_dir(dir).ok()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.split('.').next()).and_then(|n| n.parse::<u32>().ok());
        if number.is_some_and(|number| number + 1 < attempt) {
            // Best effort: the directory goes with the pod.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
