//! What a worker has done beside itself. Each operation is idempotent, may be dropped at any await, and returns what
//! it came to.

use super::devices;
use super::start::{NotStarted, Started};
use crate::network::{HostPort, NetworkError, PodAttachment, Protocol};
use crate::node::context::Context;
use crate::node::images::StartError;
use crate::node::lifecycle::FAILED_KILL;
use crate::node::spec::{Sources, sandbox_spec};
use crate::node::{hooks, pod, probe, volumes};
use crate::runtime::{RuntimeError, RuntimeResult, SandboxInfo};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a process gets at least after its hook has used up the grace.
const AFTER_HOOK: Duration = Duration::from_secs(2);

/// The result of an operation.
pub(super) enum Done {
    SetUp(Result<(SandboxInfo, Vec<IpAddr>), StartError>),
    Rebuilt(Result<(), StartError>),
    Started { container: String, result: Result<Started, NotStarted> },
    Stopped { container: String, until: Timestamp },
    Turned { container: String, result: Result<(), StartError> },
    Removed { id: String },
    Refreshed(Result<(), String>),
    Released(Result<(), StartError>),
    TornDown(Result<(), StartError>),
}

fn sandbox_error(error: &RuntimeError) -> StartError {
    StartError::new("FailedCreatePodSandBox", error.to_string())
}

fn network_error(error: &NetworkError) -> StartError {
    StartError::new("FailedCreatePodSandBox", format!("the pod's network: {error}"))
}

fn kill_error(error: &dyn std::error::Error) -> StartError {
    StartError::new(FAILED_KILL, error.to_string())
}

/// Volumes, sandbox, network.
pub(super) async fn set_up(context: Arc<Context>, pod: Arc<Pod>, stop: CancellationToken) -> Done {
    let ready = async {
        let files = prepare(&context, &pod, Vec::new(), &stop);
        files.await.map_err(|message| StartError::new("FailedMount", message))?;
        let sandbox = sandbox(&context, &pod).await?;
        let ips = attach(&context, &pod, &sandbox).await?;
        Ok((sandbox, ips))
    };
    Done::SetUp(ready.await)
}

async fn sandbox(context: &Context, pod: &Pod) -> Result<SandboxInfo, StartError> {
    let domain = context.network.dns().domain;
    let spec = sandbox_spec(pod, &context.config.hostname, &domain, &context.config.cgroup_root);
    let info = context.runtime.run_sandbox(&spec).await.map_err(|e| sandbox_error(&e))?;
    if info.ready {
        return Ok(info);
    }
    context.runtime.remove_sandbox(&spec.id).await.map_err(|e| sandbox_error(&e))?;
    context.runtime.run_sandbox(&spec).await.map_err(|e| sandbox_error(&e))
}

async fn attach(context: &Context, pod: &Pod, sandbox: &SandboxInfo) -> Result<Vec<IpAddr>, StartError> {
    let Some(netns) = &sandbox.netns else { return Ok(context.config.addresses.clone()) };
    let attachment = PodAttachment {
        id: pod::uid(pod).to_owned(),
        namespace: pod::namespace(pod).to_owned(),
        name: pod::name(pod).to_owned(),
        netns: netns.clone(),
        host_ports: host_ports(pod),
    };
    let network = context.network.attach(&attachment).await.map_err(|e| network_error(&e))?;
    Ok(network.ips)
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let ports = pod::containers(pod).flat_map(|(_, container)| container.ports.iter().flatten());
    let port = |n: i32| u16::try_from(n).ok().filter(|n| *n > 0);
    ports
        .filter_map(|p| {
            Some(HostPort {
                host_ip: p.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
                host_port: port(p.host_port?)?,
                container_port: port(p.container_port)?,
                protocol: Protocol::parse(p.protocol.as_deref().unwrap_or("TCP")),
            })
        })
        .collect()
}

/// The objects the pod refers to, with the services it may see.
pub(super) async fn sources(context: &Context, pod: &Pod) -> Result<Sources, StartError> {
    let config = |e: crate::node::spec::ConfigError| StartError::new("CreateContainerConfigError", e.to_string());
    let mut sources = context.refs.sources(pod).await.map_err(config)?;
    sources.services = context.services.list_in(pod::namespace(pod));
    sources.services.extend(context.services.get("default/kubernetes").filter(|_| pod::namespace(pod) != "default"));
    Ok(sources)
}

/// Makes the pod's volumes, or brings them up to date. A pod that ends cuts short the wait for what they hold, never the
/// work on files: that would go on behind the back of whoever removes them.
async fn prepare(context: &Context, pod: &Arc<Pod>, ips: Vec<IpAddr>, stop: &CancellationToken) -> Result<(), String> {
    let sources = stop.run_until_cancelled(sources(context, pod)).await.ok_or("the pod ends")?;
    let sources = sources.map_err(|e| e.message)?;
    let (roots, facts) = (context.roots(pod::uid(pod)), context.facts(ips));
    for volume in volumes::memory(pod, &roots) {
        context.runtime.mount_memory(&volume).await.map_err(|e| e.to_string())?;
    }
    let pod = pod.clone();
    let work = blocking(move || volumes::set_up(&pod, &roots, &sources, &facts));
    work.await?.map_err(|error| chain(&error))
}

/// An error with what lies below it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        text = format!("{text}: {cause}");
        below = cause.source();
    }
    text
}

/// File work, off the event loop.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    crate::blocking::run(work).await.map_err(|e| e.to_string())
}

pub(super) async fn refresh(context: Arc<Context>, pod: Arc<Pod>, ips: Vec<IpAddr>, stop: CancellationToken) -> Done {
    Done::Refreshed(prepare(&context, &pod, ips, &stop).await)
}

/// Freezes a container, or lets it go on.
pub(super) async fn pause(context: Arc<Context>, id: String, container: String, pause: bool) -> Done {
    let done = match pause {
        true => context.runtime.pause_container(&id).await,
        false => context.runtime.resume_container(&id).await,
    };
    let result = match done {
        // It has ended by now.
        Err(RuntimeError::WrongState { .. } | RuntimeError::NotFound { .. }) => Ok(()),
        other => other.map_err(|error| StartError::new("PauseError", error.to_string())),
    };
    Done::Turned { container, result }
}

pub(super) async fn rebuild(context: Arc<Context>, uid: String) -> Done {
    let work = async {
        context.network.detach(&uid).await.map_err(|e| kill_error(&e))?;
        take_back_devices(&context, &uid).await?;
        context.runtime.remove_sandbox(&uid).await.map_err(|e| kill_error(&e))
    };
    Done::Rebuilt(work.await)
}

async fn take_back_devices(context: &Arc<Context>, uid: &str) -> Result<(), StartError> {
    let (own, of) = (context.clone(), uid.to_owned());
    let done = blocking(move || devices::take_back(&own, &of)).await;
    done.map_err(std::io::Error::other).and_then(|done| done).map_err(|e| kill_error(&e))
}

/// A container to stop.
pub(super) struct Stop {
    pub(super) id: String,
    pub(super) container: String,
    pub(super) grace: Duration,
    pub(super) until: Timestamp,
    /// Run its hook first; a second request does not.
    pub(super) hook: bool,
}

pub(super) async fn stop(context: Arc<Context>, pod: Arc<Pod>, stop: Stop) -> Done {
    let begin = Instant::now();
    let mut grace = stop.grace;
    let container = pod::find(&pod, &stop.container).map(|(_, container)| container);
    let hook = container.and_then(|c| c.lifecycle.as_ref()?.pre_stop.clone()).filter(|_| stop.hook && !grace.is_zero());
    if let (Some(hook), Some(container)) = (hook, container) {
        let ip = pod::status(&pod).pod_ip.as_deref().and_then(|ip| ip.parse().ok());
        let place = probe::Place::new(ip, container);
        // One that stands still could not answer its hook. Where it cannot go on, the hook's own failure tells.
        if let Err(error) = context.runtime.resume_container(&stop.id).await {
            tracing::warn!(%error, container = %stop.id, "cannot resume a container before its hook");
        }
        if let Err(why) = hooks::run(&context, &stop.id, &hook, &place, grace).await {
            context.warning(
                &pod,
                "FailedPreStopHook",
                format!("PreStopHook of container {} failed: {why}", stop.container),
            );
        }
        grace = grace.saturating_sub(begin.elapsed()).max(AFTER_HOOK.min(grace));
    }
    persist(&context, "stop a container", || context.runtime.stop_container(&stop.id, grace)).await;
    Done::Stopped { container: stop.container, until: stop.until }
}

pub(super) async fn remove(context: Arc<Context>, id: String) -> Done {
    persist(&context, "remove a container", || context.runtime.remove_container(&id)).await;
    Done::Removed { id }
}

/// Asks until it works: nothing else could be done instead.
async fn persist<F, Fut>(context: &Context, what: &str, mut ask: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = RuntimeResult<()>>,
{
    let mut failures = 0;
    while let Err(error) = ask().await {
        failures += 1;
        tracing::warn!(%error, failures, "cannot {what}");
        tokio::time::sleep(context.retry.delay(failures)).await;
    }
}

pub(super) async fn release(context: Arc<Context>, uid: String) -> Done {
    let work = async {
        context.network.detach(&uid).await.map_err(|e| kill_error(&e))?;
        // The scheduler counts nothing of a pod that has ended, however long its record stays.
        take_back_devices(&context, &uid).await?;
        let volumes = context.roots(&uid).volumes();
        // Nobody uses the memory any more, and the record may stay for long.
        context.runtime.unmount_below(&volumes).await.map_err(|e| kill_error(&e))
    };
    Done::Released(work.await)
}

/// Everything, in reverse order; what fails does not keep the rest.
pub(super) async fn tear_down(context: Arc<Context>, pod: Arc<Pod>) -> Done {
    let uid = pod::uid(&pod);
    let mut problems = Vec::new();
    if let Err(error) = context.network.detach(uid).await {
        problems.push(error.to_string());
    }
    if let Err(error) = context.runtime.remove_sandbox(uid).await {
        problems.push(error.to_string());
    }
    if let Err(error) = context.runtime.unmount_below(&context.roots(uid).volumes()).await {
        problems.push(error.to_string());
    }
    context.refs.release(uid);
    let (roots, logs) = (context.roots(uid), context.pod_logs(pod::namespace(&pod), pod::name(&pod), uid));
    let files = blocking(move || roots.remove().and(remove_dir(&logs))).await;
    match files {
        Ok(Ok(())) => {}
        Ok(Err(error)) => problems.push(format!("cannot remove the pod's files: {error}")),
        Err(error) => problems.push(error),
    }
    let all = problems.join("; ");
    Done::TornDown(if problems.is_empty() { Ok(()) } else { Err(StartError::new(FAILED_KILL, all)) })
}

fn remove_dir(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Where a life of a container leaves its last words.
pub(super) fn words_file(context: &Context, uid: &str, container: &str, attempt: u32) -> PathBuf {
    context.roots(uid).pod.join("containers").join(container).join(format!("{attempt}.termination-log"))
}
