//! Sandboxes as the contract wants them: records and namespaces, the pod's cgroup, the shared process ids.

use crate::problems::Problems;
use crate::runtime::{Inner, now};
use minik8s_core::runtime::{RuntimeError, RuntimeResult, SandboxInfo, SandboxSpec};
use std::sync::Arc;

impl Inner {
    pub(crate) async fn run_sandbox(self: &Arc<Self>, spec: &SandboxSpec) -> RuntimeResult<SandboxInfo> {
        let _guard = self.locks.lock(&format!("sandbox/{}", spec.id)).await;
        let _present = self.population.read().await;
        let wanted = spec.clone();
        let made = self.blocking(move |this| {
            let info = this.sandboxes.make(&wanted, now())?;
            let group = this.pod_cgroup(&wanted);
            this.cgroups
                .limit_pod(&group, &wanted.resources)
                .map_err(|e| RuntimeError::Unavailable { operation: "limiting a pod", cause: e.to_string() })?;
            Ok(info)
        });
        let made = match made.await {
            Ok(info) if info.ready || !spec.share_pids => Ok(info),
            Ok(_) => self.complete(spec).await,
            Err(error) => Err(error),
        };
        if made.is_err() {
            let id = spec.id.clone();
            let _ = self.unshare_pids(&id).await;
            let _ = self.blocking(move |this| this.sandboxes.remove(&id)).await;
        }
        made
    }

    /// The last part of a sandbox that shares process ids.
    async fn complete(self: &Arc<Self>, spec: &SandboxSpec) -> RuntimeResult<SandboxInfo> {
        self.share_pids(spec).await?;
        let id = spec.id.clone();
        let lost = RuntimeError::NotFound { what: "sandbox", name: id.clone() };
        self.blocking(move |this| this.sandboxes.load(&id)).await?.ok_or(lost)
    }

    /// Every sandbox; one whose shared process ids have lost their holder is not ready.
    pub(crate) async fn sandboxes(self: &Arc<Self>) -> RuntimeResult<Vec<SandboxInfo>> {
        let mut all = self.blocking(|this| this.sandboxes.all()).await?;
        for info in all.iter_mut().filter(|i| i.ready && i.spec.share_pids && !i.spec.host_pid) {
            info.ready = self.pids_are_shared(&info.spec.id).await?;
        }
        Ok(all)
    }

    pub(crate) async fn remove_sandbox(self: &Arc<Self>, id: &str) -> RuntimeResult<()> {
        let _guard = self.locks.lock(&format!("sandbox/{id}")).await;
        super::record::check_id(id)?;
        let mut problems = Problems::default();
        problems.note(self.remove_containers(id).await);
        problems.note(self.unshare_pids(id).await);
        // The record stays with what could not be removed, so that somebody tries again.
        problems.none()?;
        let id = id.to_owned();
        self.blocking(move |this| {
            if let Some(info) = this.sandboxes.load(&id)? {
                this.cgroups.remove(&this.pod_cgroup(&info.spec));
            }
            this.sandboxes.remove(&id)
        })
        .await?;
        self.leave_cgroups().await
    }

    /// With the last sandbox goes the group that all pods live in.
    async fn leave_cgroups(self: &Arc<Self>) -> RuntimeResult<()> {
        let _alone = self.population.write().await;
        self.blocking(|this| {
            if this.sandboxes.all()?.is_empty() {
                this.cgroups.remove(&this.config.cgroup_root);
            }
            Ok(())
        })
        .await
    }

    /// `/<root>/<parent of the pod>`
    pub(crate) fn pod_cgroup(&self, spec: &SandboxSpec) -> String {
        let parent = match spec.cgroup_parent.trim_matches('/') {
            "" => format!("pod{}", spec.id),
            parent => parent.to_owned(),
        };
        format!("/{}/{parent}", self.config.cgroup_root.trim_matches('/'))
    }
}
