//! Sharing process ids: a container of our own, outside every listing, holds the namespace.

use super::pause;
use crate::connection::unavailable;
use crate::containers::{SPEC_TYPE, containerd_id};
use crate::problems::Problems;
use crate::runtime::Inner;
use containerd_client::services::v1 as api;
use minik8s_core::runtime::{RuntimeError, RuntimeResult, SandboxSpec};
use prost_types::Any;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// The holder of a namespace should be the last one to go.
const PAUSE_SCORE: i32 = -998;

impl Inner {
    fn pause_id(sandbox: &str) -> String {
        containerd_id(&format!("{sandbox}-pause"))
    }

    /// Starts the holder and pins its namespace.
    pub(crate) async fn share_pids(self: &Arc<Self>, spec: &SandboxSpec) -> RuntimeResult<()> {
        let cid = Self::pause_id(&spec.id);
        self.stop_pause(&cid).await?;
        let local =
            |e: std::io::Error| RuntimeError::Unavailable { operation: "sharing process ids", cause: e.to_string() };
        let root = pause::root_file_system(&self.config.root).map_err(local)?;
        let value =
            pause_spec(&root, &format!("{}/{cid}", self.pod_cgroup(spec)), PAUSE_SCORE.max(self.lowest_oom_score));
        let container = api::Container {
            id: cid.clone(),
            runtime: Some(self.runc()),
            spec: Some(Any { type_url: SPEC_TYPE.to_owned(), value }),
            ..Default::default()
        };
        let failed = unavailable("sharing process ids");
        let request = self.connection.request(api::CreateContainerRequest { container: Some(container) });
        self.connection.containers().create(request).await.map_err(&failed)?;
        let create = api::CreateTaskRequest { container_id: cid.clone(), ..Default::default() };
        let task = self.connection.tasks().create(self.connection.request(create)).await.map_err(&failed)?;
        let start = api::StartRequest { container_id: cid, exec_id: String::new() };
        self.connection.tasks().start(self.connection.request(start)).await.map_err(&failed)?;
        let (id, pid) = (spec.id.clone(), task.into_inner().pid);
        self.blocking(move |this| this.sandboxes.pin_pids(&id, pid)).await
    }

    /// Ends the holder of a sandbox, where there is one.
    pub(crate) async fn unshare_pids(self: &Arc<Self>, sandbox: &str) -> RuntimeResult<()> {
        self.stop_pause(&Self::pause_id(sandbox)).await
    }

    async fn stop_pause(&self, cid: &str) -> RuntimeResult<()> {
        if self.containerd_record(cid).await?.is_none() {
            return Ok(());
        }
        let mut problems = Problems::default();
        problems.note(self.kill_task(cid).await);
        problems.note(self.delete_task(cid).await);
        problems.note(self.forget_container(cid).await);
        problems.none()
    }

    /// False where the holder has ended: its namespace takes no new process then.
    pub(crate) async fn pids_are_shared(&self, sandbox: &str) -> RuntimeResult<bool> {
        use containerd_client::types::v1::Status;
        let process = self.process(&Self::pause_id(sandbox), "").await?;
        Ok(process.is_some_and(|p| p.status() == Status::Running))
    }
}

fn pause_spec(root: &Path, cgroup: &str, oom_score: i32) -> Vec<u8> {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 65535, "gid": 65535},
            "args": ["/pause"],
            "cwd": "/",
            "noNewPrivileges": true,
            "oomScoreAdj": oom_score,
        },
        "root": {"path": root, "readonly": true},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
    })
    .to_string()
    .into_bytes()
}
