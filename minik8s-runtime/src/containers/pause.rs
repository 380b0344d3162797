//! Pausing: the kernel's freezer, asked directly. By containerd it would cost a run of runc each time, which is as long as
//! all else that lies between a call and a paused function. Whether one is paused is the kernel's to know, so that nothing
//! has to be remembered.

use super::containerd_id;
use crate::runtime::Inner;
use minik8s_core::runtime::{ContainerState, RuntimeError, RuntimeResult};
use std::sync::Arc;

fn unavailable(operation: &'static str) -> impl Fn(std::io::Error) -> RuntimeError {
    move |error| RuntimeError::Unavailable { operation, cause: error.to_string() }
}

impl Inner {
    pub(crate) async fn pause_container(self: &Arc<Self>, id: &str) -> RuntimeResult<()> {
        let cid = containerd_id(id);
        let missing = || RuntimeError::NotFound { what: "container", name: id.to_owned() };
        let info = self.container(id).await?.ok_or_else(missing)?;
        if info.state != ContainerState::Running {
            let state = if info.state == ContainerState::Created { "created" } else { "exited" };
            return Err(RuntimeError::WrongState { name: id.to_owned(), state, operation: "pause" });
        }
        let record = self.record(&cid).await?.ok_or_else(missing)?;
        self.blocking(move |this| this.cgroups.freeze(&record.cgroup, true).map_err(unavailable("pausing a container")))
            .await
    }

    pub(crate) async fn resume_container(self: &Arc<Self>, id: &str) -> RuntimeResult<()> {
        self.thaw(&containerd_id(id)).await
    }

    /// Lets processes go on, where there are any and they were frozen.
    pub(crate) async fn thaw(self: &Arc<Self>, cid: &str) -> RuntimeResult<()> {
        let Some(record) = self.record(cid).await? else { return Ok(()) };
        self.blocking(move |this| {
            if !this.cgroups.is_frozen(&record.cgroup) {
                return Ok(());
            }
            this.cgroups.freeze(&record.cgroup, false).map_err(unavailable("resuming a container"))
        })
        .await
    }
}
