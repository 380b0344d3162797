//! Starting: a task with its log, then its process.

use super::{Record, containerd_id, refused};
use crate::connection::unavailable;
use crate::runtime::{Inner, now};
use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use containerd_client::types::Mount;
use containerd_client::types::v1::Status;
use minik8s_core::runtime::{RuntimeError, RuntimeResult};
use std::sync::Arc;

/// Where the outputs go, and the input comes from.
#[derive(Default)]
pub(crate) struct TaskIo {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Inner {
    pub(crate) async fn start_container(self: &Arc<Self>, id: &str) -> RuntimeResult<()> {
        let cid = containerd_id(id);
        let _guard = self.locks.lock(&cid).await;
        let missing = || RuntimeError::NotFound { what: "container", name: id.to_owned() };
        let record = self.record(&cid).await?.ok_or_else(missing)?;
        let prepared = self.prepared.lock().remove(&cid);
        let rootfs = match prepared {
            Some(mounts) => mounts,
            // Made by an earlier process: it may have got further than making.
            None => {
                let process = self.process(&cid, "").await?;
                match process.as_ref().map(containerd_client::types::v1::Process::status) {
                    Some(Status::Running | Status::Paused | Status::Pausing) => return Ok(()),
                    Some(Status::Created) => return self.run_task(&cid, id).await,
                    Some(_) => return Err(exited(id)),
                    None if self.files(&cid).started().is_some() => return Err(exited(id)),
                    None => self.layer_mounts(&cid).await?,
                }
            }
        };
        let io = self.task_io(&cid, &record).await?;
        self.create_task(&cid, &record, rootfs, io).await?;
        self.run_task(&cid, id).await
    }

    async fn create_task(&self, cid: &str, record: &Record, rootfs: Vec<Mount>, io: TaskIo) -> RuntimeResult<()> {
        let request = api::CreateTaskRequest {
            container_id: cid.to_owned(),
            rootfs,
            stdin: io.stdin,
            stdout: io.stdout,
            stderr: io.stderr,
            terminal: record.tty,
            ..Default::default()
        };
        let created = self.connection.tasks().create(self.connection.request(request)).await;
        created.map_err(|s| start_error(&record.id, &s))?;
        Ok(())
    }

    /// That it was started is written down first: a task that is gone later then counts as ended, not as never run.
    async fn run_task(&self, cid: &str, id: &str) -> RuntimeResult<()> {
        let files = self.files(cid);
        files.set_started(now()).map_err(|e| refused("start", id)(e.to_string()))?;
        let request = api::StartRequest { container_id: cid.to_owned(), exec_id: String::new() };
        match self.connection.tasks().start(self.connection.request(request)).await {
            Ok(_) => Ok(()),
            Err(status) => {
                let _ = self.delete_task(cid).await;
                files.clear_started();
                Err(start_error(id, &status))
            }
        }
    }

    async fn layer_mounts(&self, cid: &str) -> RuntimeResult<Vec<Mount>> {
        let request = snap::MountsRequest { snapshotter: self.config.snapshotter.clone(), key: cid.to_owned() };
        let mounts = self.connection.snapshots().mounts(self.connection.request(request)).await;
        Ok(mounts.map_err(unavailable("looking for a root file system"))?.into_inner().mounts)
    }
}

fn exited(id: &str) -> RuntimeError {
    RuntimeError::WrongState { name: id.to_owned(), state: "exited", operation: "start" }
}

/// runc's message without the layers that wrapped it.
fn start_error(id: &str, status: &tonic::Status) -> RuntimeError {
    refused("start", id)(plain_cause(status.message()).to_owned())
}

pub(crate) fn plain_cause(message: &str) -> &str {
    let message = message.trim_end_matches(": unknown");
    let inner = ["unable to start container process: ", "OCI runtime create failed: ", "OCI runtime start failed: "];
    inner.iter().find_map(|marker| message.split_once(marker).map(|(_, rest)| rest)).unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_freed_from_their_wrapping() {
        let wrapped = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start \
                       container process: exec: \"nope\": executable file not found in $PATH: unknown";
        assert_eq!(plain_cause(wrapped), "exec: \"nope\": executable file not found in $PATH");
        assert_eq!(plain_cause("something else"), "something else");
    }
}
