//! The contract of `minik8s-core`, call by call.

use crate::ContainerdRuntime;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use minik8s_core::runtime::{
    Connection, ContainerInfo, ContainerSpec, ContainerStats, Containers, ExecSpec, ImageInfo, Images, MemoryVolume,
    PullProgress, RegistryAuth, Runtime, RuntimeCapabilities, RuntimeEvent, RuntimeResult, SandboxInfo, SandboxSpec,
    Sandboxes, StreamSession, Streams, Volumes,
};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::BroadcastStream;

#[async_trait]
impl Sandboxes for ContainerdRuntime {
    async fn run_sandbox(&self, spec: &SandboxSpec) -> RuntimeResult<SandboxInfo> {
        self.inner.run_sandbox(spec).await
    }

    async fn remove_sandbox(&self, id: &str) -> RuntimeResult<()> {
        self.inner.remove_sandbox(id).await
    }

    async fn sandboxes(&self) -> RuntimeResult<Vec<SandboxInfo>> {
        self.inner.sandboxes().await
    }
}

#[async_trait]
impl Containers for ContainerdRuntime {
    async fn create_container(&self, sandbox: &str, spec: &ContainerSpec) -> RuntimeResult<()> {
        self.inner.create_container(sandbox, spec).await
    }

    async fn start_container(&self, id: &str) -> RuntimeResult<()> {
        self.inner.start_container(id).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> RuntimeResult<()> {
        self.inner.stop_container(id, grace).await
    }

    async fn pause_container(&self, id: &str) -> RuntimeResult<()> {
        self.inner.pause_container(id).await
    }

    async fn resume_container(&self, id: &str) -> RuntimeResult<()> {
        self.inner.resume_container(id).await
    }

    async fn remove_container(&self, id: &str) -> RuntimeResult<()> {
        self.inner.remove_container(id).await
    }

    async fn containers(&self, sandbox: Option<&str>) -> RuntimeResult<Vec<ContainerInfo>> {
        self.inner.containers(sandbox).await
    }

    async fn container(&self, id: &str) -> RuntimeResult<Option<ContainerInfo>> {
        self.inner.container(id).await
    }

    async fn stats(&self, id: &str) -> RuntimeResult<ContainerStats> {
        self.inner.stats(id).await
    }
}

#[async_trait]
impl Images for ContainerdRuntime {
    async fn image(&self, name: &str) -> RuntimeResult<Option<ImageInfo>> {
        self.inner.images.info(name).await
    }

    async fn images(&self) -> RuntimeResult<Vec<ImageInfo>> {
        self.inner.images.infos().await
    }

    async fn pull(
        &self,
        name: &str,
        auth: Option<&RegistryAuth>,
        progress: Option<mpsc::Sender<PullProgress>>,
    ) -> RuntimeResult<ImageInfo> {
        self.inner.images.pull(name, auth, progress).await
    }

    async fn import(&self, archive: PathBuf, name: Option<&str>) -> RuntimeResult<Vec<ImageInfo>> {
        self.inner.images.import(archive, name).await
    }

    async fn remove_image(&self, name: &str) -> RuntimeResult<()> {
        self.inner.images.remove(name).await
    }
}

#[async_trait]
impl Streams for ContainerdRuntime {
    async fn exec(&self, id: &str, spec: ExecSpec) -> RuntimeResult<StreamSession> {
        self.inner.exec(id, spec).await
    }

    async fn attach(&self, id: &str, stdin: bool) -> RuntimeResult<StreamSession> {
        self.inner.attach(id, stdin).await
    }

    async fn connect(&self, sandbox: &str, port: u16) -> RuntimeResult<Connection> {
        self.inner.connect(sandbox, port).await
    }
}

#[async_trait]
impl Volumes for ContainerdRuntime {
    async fn mount_memory(&self, volume: &MemoryVolume) -> RuntimeResult<()> {
        let volume = volume.clone();
        self.inner.blocking(move |_| crate::volumes::mount_memory(&volume)).await
    }

    async fn unmount_below(&self, directory: &Path) -> RuntimeResult<()> {
        let directory = directory.to_owned();
        self.inner.blocking(move |_| crate::volumes::unmount_below(&directory)).await
    }
}

#[async_trait]
impl Runtime for ContainerdRuntime {
    async fn capabilities(&self) -> RuntimeResult<RuntimeCapabilities> {
        let version = format!("containerd://{}", self.inner.version.trim_start_matches('v'));
        Ok(RuntimeCapabilities { version, real_processes: true, share_pids: true })
    }

    async fn events(&self) -> RuntimeResult<BoxStream<'static, RuntimeEvent>> {
        let events = BroadcastStream::new(self.inner.events.subscribe());
        Ok(events.map(|event| event.unwrap_or(RuntimeEvent::Resync)).boxed())
    }
}
