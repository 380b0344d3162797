//! Sandboxes: records only.

use super::{FakeOp, FakeRuntime};
use crate::runtime::{RuntimeResult, SandboxInfo, SandboxSpec, Sandboxes};
use async_trait::async_trait;
use std::path::PathBuf;

#[async_trait]
impl Sandboxes for FakeRuntime {
    async fn run_sandbox(&self, spec: &SandboxSpec) -> RuntimeResult<SandboxInfo> {
        self.inner.call(FakeOp::RunSandbox, &spec.id).await?;
        let mut state = self.inner.state.lock();
        let now = self.inner.now();
        let info = state.sandboxes.entry(spec.id.clone()).or_insert_with(|| SandboxInfo {
            version: 1,
            spec: spec.clone(),
            netns: (!spec.host_network).then(|| PathBuf::from("/run/minik8s-fake/netns").join(&spec.id)),
            ready: true,
            created_at: now,
        });
        info.ready = true;
        Ok(info.clone())
    }

    async fn remove_sandbox(&self, id: &str) -> RuntimeResult<()> {
        self.inner.call(FakeOp::RemoveSandbox, id).await?;
        let mut state = self.inner.state.lock();
        let inside: Vec<String> =
            state.containers.values().filter(|c| c.info.sandbox == id).map(|c| c.info.id.clone()).collect();
        let gone: Vec<_> = inside.iter().filter_map(|name| state.containers.remove(name)).collect();
        state.sandboxes.remove(id);
        drop(state);
        for container in gone {
            if let Some(control) = &container.control {
                control.kill();
            }
            self.inner.announce(id, &container.info.id);
        }
        Ok(())
    }

    async fn sandboxes(&self) -> RuntimeResult<Vec<SandboxInfo>> {
        self.inner.call(FakeOp::Sandboxes, "").await?;
        Ok(self.inner.state.lock().sandboxes.values().cloned().collect())
    }
}
