//! What a container is now: containerd's record, its task, our files.

use super::{Record, SANDBOX_LABEL, containerd_id};
use crate::connection::{Tolerate, past_leaving_shims, unavailable};
use crate::runtime::Inner;
use containerd_client::services::v1 as api;
use containerd_client::types::v1::{Process, Status};
use minik8s_core::runtime::{ContainerInfo, ContainerState, Exit, RuntimeResult};
use std::collections::HashMap;
use std::sync::Arc;
use tonic::Code;

/// Exit code where nobody saw the end (a reboot, a killed shim), as containerd's CRI plugin reports it.
const UNKNOWN_EXIT: i32 = 255;

impl Inner {
    /// The record of a container, from memory or containerd.
    pub(crate) async fn record(&self, cid: &str) -> RuntimeResult<Option<Arc<Record>>> {
        if let Some(record) = self.records.lock().get(cid) {
            return Ok(Some(record.clone()));
        }
        let found = self.containerd_record(cid).await?;
        let Some(record) = found.as_ref().and_then(Record::of).map(Arc::new) else { return Ok(None) };
        self.records.lock().insert(cid.to_owned(), record.clone());
        Ok(Some(record))
    }

    pub(crate) async fn containerd_record(&self, cid: &str) -> RuntimeResult<Option<api::Container>> {
        let request = self.connection.request(api::GetContainerRequest { id: cid.to_owned() });
        let found = self.connection.containers().get(request).await.tolerate(Code::NotFound);
        Ok(found.map_err(unavailable("looking for a container"))?.and_then(|r| r.container))
    }

    /// A container's main process, or one that `exec` names.
    pub(crate) async fn process(&self, cid: &str, exec: &str) -> RuntimeResult<Option<Process>> {
        let found = past_leaving_shims(|| async {
            let request = api::GetRequest { container_id: cid.to_owned(), exec_id: exec.to_owned() };
            self.connection.tasks().get(self.connection.request(request)).await
        });
        Ok(found.await.tolerate(Code::NotFound).map_err(unavailable("looking for a process"))?.and_then(|r| r.process))
    }

    pub(crate) async fn container(self: &Arc<Self>, id: &str) -> RuntimeResult<Option<ContainerInfo>> {
        let cid = containerd_id(id);
        let Some(container) = self.containerd_record(&cid).await? else {
            self.records.lock().remove(&cid);
            return Ok(None);
        };
        let Some(record) = Record::of(&container).filter(|r| r.id == id) else { return Ok(None) };
        let process = match self.files(&cid).exit() {
            Some(_) => None,
            None => self.process(&cid, "").await?,
        };
        self.describe(&cid, record, process).await.map(Some)
    }

    pub(crate) async fn containers(self: &Arc<Self>, sandbox: Option<&str>) -> RuntimeResult<Vec<ContainerInfo>> {
        let filter = sandbox.map(|s| format!("labels.{SANDBOX_LABEL:?}=={s:?}"));
        let request = api::ListContainersRequest { filters: filter.into_iter().collect() };
        let (mut containers, mut tasks) = (self.connection.containers(), self.connection.tasks());
        let (listed, running) = tokio::join!(
            containers.list(self.connection.request(request)),
            tasks.list(self.connection.request(api::ListTasksRequest::default())),
        );
        let listed = listed.map_err(unavailable("listing containers"))?.into_inner().containers;
        let running = running.map_err(unavailable("listing tasks"))?.into_inner().tasks;
        // Tasks name their container as their id.
        let mut running: HashMap<String, Process> = running.into_iter().map(|p| (p.id.clone(), p)).collect();
        let mut infos = Vec::with_capacity(listed.len());
        for container in &listed {
            let Some(record) = Record::of(container) else { continue };
            infos.push(self.describe(&container.id, record, running.remove(&container.id)).await?);
        }
        Ok(infos)
    }

    async fn describe(
        self: &Arc<Self>,
        cid: &str,
        record: Record,
        process: Option<Process>,
    ) -> RuntimeResult<ContainerInfo> {
        let files = self.files(cid);
        let status = process.as_ref().map(Process::status);
        let state = match (files.exit(), status) {
            (Some(exit), _) => ContainerState::Exited(exit),
            (None, Some(Status::Stopped)) => ContainerState::Exited(self.settle(cid, process.as_ref()).await?),
            (None, Some(Status::Running | Status::Paused | Status::Pausing)) => ContainerState::Running,
            (None, Some(_)) => ContainerState::Created,
            // It ran, and its task is gone without anyone having seen the end.
            (None, None) if files.started().is_some() => ContainerState::Exited(self.settle(cid, None).await?),
            (None, None) => ContainerState::Created,
        };
        let paused = state == ContainerState::Running && self.cgroups.is_frozen(&record.cgroup);
        let pid = process.filter(|_| state == ContainerState::Running).map(|p| p.pid);
        Ok(ContainerInfo {
            id: record.id,
            sandbox: record.sandbox,
            image: record.image,
            image_id: record.image_id,
            started_at: if state == ContainerState::Created { 0 } else { files.started().unwrap_or(0) },
            state,
            paused,
            created_at: record.created_at,
            pid,
            log_path: record.log_path,
            labels: record.labels,
        })
    }

    pub(crate) fn unknown_exit(at: i64) -> Exit {
        Exit { code: UNKNOWN_EXIT, oom_killed: false, finished_at: at }
    }
}
