//! What a running container used.

use super::containerd_id;
use crate::runtime::{Inner, now};
use minik8s_core::runtime::{ContainerState, ContainerStats, RuntimeError, RuntimeResult};
use std::sync::Arc;

impl Inner {
    pub(crate) async fn stats(self: &Arc<Self>, id: &str) -> RuntimeResult<ContainerStats> {
        let missing = || RuntimeError::NotFound { what: "container", name: id.to_owned() };
        let state = |state| RuntimeError::WrongState { name: id.to_owned(), state, operation: "read statistics" };
        let info = self.container(id).await?.ok_or_else(missing)?;
        match info.state {
            ContainerState::Running => {}
            ContainerState::Created => return Err(state("created")),
            ContainerState::Exited(_) => return Err(state("exited")),
        }
        let record = self.record(&containerd_id(id)).await?.ok_or_else(missing)?;
        self.blocking(move |this| Ok(this.cgroups.stats(&record.cgroup, now()))).await?.ok_or_else(|| state("exited"))
    }
}
