//! The door to this node's containers: logs from their files; commands, terminals, connections and usage from the runtime.

use super::access::{
    ContainerRef, ContainerUsage, FilesWish, LogOptions, NodeAccess, NodeUsage, PodRef, VolumeFile, VolumeRef,
};
use super::companion::Companion;
use super::config::NodeConfig;
use super::logs::{self, Ended, Life};
use super::{ids, machine, volumes, worker};
use crate::api::{ApiError, ApiResult, Reason};
use crate::blocking;
use crate::clock::SharedClock;
use crate::runtime::{
    Connection, ContainerInfo, ContainerState, ExecSpec, RuntimeError, RuntimeEvent, SharedRuntime, StreamSession,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

/// How often a follower asks again where events cannot be had.
const NO_EVENTS: Duration = Duration::from_secs(5);
/// Containers whose usage is read at a time.
const READS: usize = 8;

/// See the [module](self).
pub(crate) struct Access {
    config: NodeConfig,
    runtime: SharedRuntime,
    clock: SharedClock,
    /// What runs beside the pods counts here.
    page: Registry,
}

impl Access {
    pub(crate) fn new(config: NodeConfig, runtime: SharedRuntime, clock: SharedClock) -> Self {
        Self { config, runtime, clock, page: Registry::default() }
    }

    /// With what these count.
    pub(crate) fn counting(mut self, companions: &[Arc<dyn Companion>]) -> Self {
        companions.iter().for_each(|companion| companion.register(&mut self.page));
        self
    }

    /// The present life of a container.
    async fn current(&self, at: &ContainerRef) -> ApiResult<ContainerInfo> {
        let all = self.runtime.containers(Some(&at.uid)).await.map_err(|e| refused(&e))?;
        let found = worker::lives(&all, &at.container).into_iter().next().cloned();
        found.ok_or_else(|| ApiError::new(Reason::NotFound, format!("container not found (\"{}\")", at.container)))
    }

    /// Resolves once that life of the container has ended.
    fn end(&self, at: &ContainerRef, life: &Life) -> Ended {
        let (runtime, uid, container, attempt) =
            (self.runtime.clone(), at.uid.clone(), at.container.clone(), life.attempt);
        Box::new(move || Box::pin(ended(runtime, uid, container, attempt)))
    }
}

async fn ended(runtime: SharedRuntime, uid: String, container: String, attempt: u32) {
    let id = ids::container_id(&uid, &container, attempt);
    loop {
        // Subscribed before asking, so that its end is not missed.
        let events = runtime.events().await;
        match runtime.container(&id).await {
            Ok(Some(info)) if matches!(info.state, ContainerState::Exited(_)) => return,
            Ok(None) => return,
            _ => {}
        }
        let Ok(mut events) = events else {
            tokio::time::sleep(NO_EVENTS).await;
            continue;
        };
        loop {
            match events.next().await {
                Some(RuntimeEvent::Container { id: about, .. }) if about != id => {}
                _ => break,
            }
        }
    }
}

#[async_trait]
impl NodeAccess for Access {
    async fn logs(&self, at: &ContainerRef, options: LogOptions) -> ApiResult<BoxStream<'static, ApiResult<Bytes>>> {
        let pod = format!("{}_{}_{}", at.namespace, at.pod, at.uid);
        let dir = self.config.logs_dir().join(pod).join(&at.container);
        let found = logs::find(&dir, options.previous);
        let (container, pod) = (&at.container, &at.pod);
        let life = found.ok_or_else(|| {
            ApiError::bad_request(if options.previous {
                format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")
            } else {
                format!("container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating")
            })
        })?;
        let end = self.end(at, &life);
        Ok(logs::read(life, options, end))
    }

    async fn exec(&self, at: &ContainerRef, spec: ExecSpec) -> ApiResult<StreamSession> {
        let container = self.current(at).await?;
        self.runtime.exec(&container.id, spec).await.map_err(|e| refused(&e))
    }

    async fn attach(&self, at: &ContainerRef, stdin: bool) -> ApiResult<StreamSession> {
        let container = self.current(at).await?;
        self.runtime.attach(&container.id, stdin).await.map_err(|e| refused(&e))
    }

    async fn port_forward(&self, pod: &PodRef, port: u16) -> ApiResult<Connection> {
        self.runtime.connect(&pod.uid, port).await.map_err(|e| refused(&e))
    }

    async fn metrics(&self) -> ApiResult<String> {
        let mut page = String::new();
        prometheus_client::encoding::text::encode_registry(&mut page, &self.page)
            .map_err(|e| ApiError::internal(format!("metrics without a text form: {e}")))?;
        Ok(page)
    }

    async fn stats(&self) -> ApiResult<NodeUsage> {
        let real = self.runtime.capabilities().await.map_err(|e| refused(&e))?.real_processes;
        let all = self.runtime.containers(None).await.map_err(|e| refused(&e))?;
        let running: Vec<_> = all.into_iter().filter(|c| c.state == ContainerState::Running).collect();
        let reads = stream::iter(running).map(|container| usage(&self.runtime, container)).buffered(READS);
        let containers = reads.try_filter_map(|usage| std::future::ready(Ok(usage))).try_collect().await?;
        Ok(NodeUsage { machine: if real { machine::usage(self.clock.now()) } else { None }, containers })
    }

    async fn volume_files(&self, at: &VolumeRef, wish: &FilesWish) -> ApiResult<Vec<VolumeFile>> {
        let (root, wish) = (volumes::inside(&self.config, at)?, wish.clone());
        on_disk(move || volumes::files(&root, &wish)).await
    }

    async fn read_volume(&self, at: &VolumeRef, path: &str, from: u64, most: u64) -> ApiResult<Bytes> {
        let (root, path) = (volumes::inside(&self.config, at)?, path.to_owned());
        on_disk(move || volumes::read(&root, &path, from, most)).await
    }
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> ApiResult<T> {
    let done = blocking::run(work).await.map_err(std::io::Error::other).and_then(|done| done);
    done.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let why = "the node has no such volume of the pod: it was never made there, or is lost";
            ApiError::new(Reason::NotFound, why)
        }
        _ => ApiError::internal(format!("a volume of the pod cannot be read: {error}")),
    })
}

/// What a container has used; nothing where it has ended meanwhile.
async fn usage(runtime: &SharedRuntime, container: ContainerInfo) -> ApiResult<Option<ContainerUsage>> {
    let stats = match runtime.stats(&container.id).await {
        Ok(stats) => stats,
        Err(RuntimeError::NotFound { .. } | RuntimeError::WrongState { .. }) => return Ok(None),
        Err(e) => return Err(refused(&e)),
    };
    let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
    let [namespace, pod, uid, name] = [ids::POD_NAMESPACE, ids::POD_NAME, ids::POD_UID, ids::CONTAINER_NAME].map(label);
    let of = ContainerRef { namespace, pod, uid, container: name };
    Ok(Some(ContainerUsage { container: of, started_at: container.started_at, stats }))
}

/// What a runtime's refusal means to a client of the API.
fn refused(error: &RuntimeError) -> ApiError {
    let reason = match error {
        RuntimeError::NotFound { .. } => Reason::NotFound,
        RuntimeError::WrongState { .. } | RuntimeError::Invalid(_) | RuntimeError::InvalidImageName { .. } => {
            Reason::BadRequest
        }
        RuntimeError::Unsupported(_) => Reason::MethodNotAllowed,
        RuntimeError::Unavailable { .. } => Reason::ServiceUnavailable,
        _ => Reason::InternalError,
    };
    ApiError::new(reason, error.to_string())
}
