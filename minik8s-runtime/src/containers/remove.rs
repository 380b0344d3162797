//! Removing a container with everything it left, in whatever state it is found.

use super::containerd_id;
use crate::connection::{Tolerate, unavailable};
use crate::problems::Problems;
use crate::runtime::Inner;
use containerd_client::services::v1 as api;
use futures::future::join_all;
use minik8s_core::runtime::{RuntimeError, RuntimeResult};
use std::sync::Arc;
use tonic::Code;

impl Inner {
    pub(crate) async fn remove_container(self: &Arc<Self>, id: &str) -> RuntimeResult<()> {
        self.remove_by_cid(&containerd_id(id)).await
    }

    async fn remove_by_cid(self: &Arc<Self>, cid: &str) -> RuntimeResult<()> {
        let _guard = self.locks.lock(cid).await;
        let files = self.files(cid);
        let record = files.record();
        let mut problems = Problems::default();
        if files.exit().is_none() {
            // What is frozen may not even hear that it is killed.
            problems.note(self.thaw(cid).await);
            problems.note(self.kill_task(cid).await);
        }
        problems.note(self.finish_task(cid).await);
        self.prepared.lock().remove(cid);
        problems.note(self.forget_container(cid).await);
        problems.note(self.images.remove_snapshot(cid).await);
        if let Some(record) = record {
            let gone = self.blocking(move |this| {
                this.cgroups.remove(&record.cgroup);
                Ok(())
            });
            problems.note(gone.await);
        }
        problems.none()?;
        self.records.lock().remove(cid);
        let cid = cid.to_owned();
        // Last, so that what could not be removed is found again.
        self.blocking(move |this| {
            this.remove_fifos(&cid);
            files.remove().map_err(|e| RuntimeError::Unavailable {
                operation: "removing a container's records",
                cause: e.to_string(),
            })
        })
        .await
    }

    /// Removes containerd's record.
    pub(crate) async fn forget_container(&self, cid: &str) -> RuntimeResult<()> {
        let request = self.connection.request(api::DeleteContainerRequest { id: cid.to_owned() });
        let deleted = self.connection.containers().delete(request).await;
        deleted.tolerate(Code::NotFound).map_err(unavailable("removing a container"))?;
        Ok(())
    }

    /// Every container of the sandbox, also those of which only our files are left.
    pub(crate) async fn remove_containers(self: &Arc<Self>, sandbox: &str) -> RuntimeResult<()> {
        let mut ids: Vec<String> = self.containers(Some(sandbox)).await?.iter().map(|c| containerd_id(&c.id)).collect();
        let owner = sandbox.to_owned();
        let strays = self.blocking(move |this| {
            let dir = std::fs::read_dir(this.config.root.join("containers"));
            let names = dir.into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok());
            Ok(names.filter(|cid| this.files(cid).record().is_some_and(|r| r.sandbox == owner)).collect::<Vec<_>>())
        });
        ids.extend(strays.await?);
        ids.sort();
        ids.dedup();
        let mut problems = Problems::default();
        join_all(ids.iter().map(|cid| self.remove_by_cid(cid))).await.into_iter().for_each(|r| problems.note(r));
        problems.none()
    }
}
