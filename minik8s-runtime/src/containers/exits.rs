//! Exits: written down once, then the task and its shim go.

use crate::connection::{Tolerate, unavailable};
use crate::runtime::{Inner, now};
use containerd_client::services::v1 as api;
use containerd_client::types::v1::{Process, Status};
use minik8s_core::runtime::{Exit, RuntimeError, RuntimeResult};
use tonic::Code;

impl Inner {
    /// Writes down how a container ended, from its stopped process or, where that is gone, as unknown; then deletes
    /// the task. The first one to write wins, so that everyone answers the same.
    pub(crate) async fn settle(&self, cid: &str, process: Option<&Process>) -> RuntimeResult<Exit> {
        let _guard = self.locks.lock(&format!("exit/{cid}")).await;
        let files = self.files(cid);
        if let Some(exit) = files.exit() {
            return Ok(exit);
        }
        let Some(record) = self.record(cid).await? else { return Ok(Self::unknown_exit(now())) };
        let exit = match process {
            Some(p) => {
                let code = i32::try_from(p.exit_status).unwrap_or(255);
                // The group outlives the process until the task is deleted, so the kernel's count can still be read.
                let oom_killed = code != 0 && self.cgroups.oom_kills(&record.cgroup) > 0;
                Exit { code, oom_killed, finished_at: p.exited_at.as_ref().map_or_else(now, milliseconds) }
            }
            None => Self::unknown_exit(now()),
        };
        files
            .set_exit(&exit)
            .map_err(|e| RuntimeError::Unavailable { operation: "writing down an exit", cause: e.to_string() })?;
        self.delete_task(cid).await?;
        Ok(exit)
    }

    /// Waits until the main process has ended, and settles. `None` where there is no task.
    pub(crate) async fn wait(&self, cid: &str) -> RuntimeResult<()> {
        let request = api::WaitRequest { container_id: cid.to_owned(), exec_id: String::new() };
        let ended = self.connection.tasks().wait(self.connection.request(request)).await.tolerate(Code::NotFound);
        if let Some(ended) = ended.map_err(unavailable("waiting for a container"))? {
            let process = Process {
                status: Status::Stopped as i32,
                exit_status: ended.exit_status,
                exited_at: ended.exited_at,
                ..Process::default()
            };
            self.settle(cid, Some(&process)).await?;
        }
        Ok(())
    }

    pub(crate) async fn delete_task(&self, cid: &str) -> RuntimeResult<()> {
        let request = self.connection.request(api::DeleteTaskRequest { container_id: cid.to_owned() });
        let deleted = self.connection.tasks().delete(request).await;
        deleted.tolerate(Code::NotFound).map_err(unavailable("deleting a task"))?;
        Ok(())
    }
}

pub(crate) fn milliseconds(at: &prost_types::Timestamp) -> i64 {
    at.seconds * 1000 + i64::from(at.nanos) / 1_000_000
}
