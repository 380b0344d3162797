//! Starting: a task with its log, then its process.

use super::{Record, containerd_id, refused};
use crate::connection::unavailable;
use crate::runtime::{Inner, now};
use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use containerd_client::types::Mount;
use containerd_client::types::v1::Status;
use minik8s_core::runtime::{Exit, RuntimeError, RuntimeResult};
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

/// Exit code of a container that could not be started.
const START_FAILED: i32 = 128;
const BUNDLE_ATTEMPTS: u32 = 50;
const BUNDLE_PAUSE: Duration = Duration::from_millis(20);

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
                    None if self.files(&cid).started().is_some() || self.files(&cid).exit().is_some() => {
                        return Err(exited(id));
                    }
                    None => self.layer_mounts(&cid).await?,
                }
            }
        };
        let io = self.task_io(&cid, &record).await?;
        let mut created = self.create_task(&cid, &record, &rootfs, &io).await;
        // A container of that id that was just removed may still be on its way out of containerd's directories.
        for _ in 0..BUNDLE_ATTEMPTS {
            match &created {
                Err(status) if status.message().ends_with("file exists") => {
                    tokio::time::sleep(BUNDLE_PAUSE).await;
                    created = self.create_task(&cid, &record, &rootfs, &io).await;
                }
                _ => break,
            }
        }
        if let Err(status) = created {
            return Err(self.start_failed(&cid, id, &status).await);
        }
        self.run_task(&cid, id).await
    }

    /// A start that failed is an end, with the code that Kubernetes shows for it.
    async fn start_failed(&self, cid: &str, id: &str, status: &tonic::Status) -> RuntimeError {
        if matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded) {
            return unavailable("starting a container")(status.clone());
        }
        let exit = Exit { code: START_FAILED, oom_killed: false, finished_at: now() };
        let files = self.files(cid);
        let _ = self.delete_task(cid).await;
        let settled = files.note_exit(&exit).and_then(|_| files.show_exit());
        self.remove_fifos(cid);
        match settled {
            Ok(()) => refused("start", id)(plain_cause(status.message()).to_owned()),
            Err(e) => refused("start", id)(e.to_string()),
        }
    }

    async fn create_task(
        &self,
        cid: &str,
        record: &Record,
        rootfs: &[Mount],
        io: &TaskIo,
    ) -> Result<(), tonic::Status> {
        let request = api::CreateTaskRequest {
            container_id: cid.to_owned(),
            rootfs: rootfs.to_vec(),
            stdin: io.stdin.clone(),
            stdout: io.stdout.clone(),
            stderr: io.stderr.clone(),
            terminal: record.tty,
            ..Default::default()
        };
        self.connection.tasks().create(self.connection.request(request)).await.map(drop)
    }

    /// That it was started is written down first: a task that is gone later then counts as ended, not as never run.
    async fn run_task(&self, cid: &str, id: &str) -> RuntimeResult<()> {
        let files = self.files(cid);
        files.set_started(now()).map_err(|e| refused("start", id)(e.to_string()))?;
        let request = api::StartRequest { container_id: cid.to_owned(), exec_id: String::new() };
        match self.connection.tasks().start(self.connection.request(request)).await {
            Ok(_) => Ok(()),
            // containerd looks at the process once more before it answers. One that has ended by then is settled, and its
            // task gone.
            Err(status) if status.code() == Code::NotFound && files.noted_exit().is_some() => Ok(()),
            Err(status) => Err(self.start_failed(cid, id, &status).await),
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
