//! What a job came with and needs no more, when it is done with: the pieces of its archive. They go where they are its own;
//! ConfigMaps that somebody made for more than one job stay.

use super::site::Site;
use crate::kinds::GpuJob;
use k8s_openapi::api::core::v1::ConfigMap;
use minik8s_core::api::ApiResult;
use minik8s_core::client::{DeleteOptions, DeletePreconditions};

impl Site {
    /// Missing is success.
    pub(super) async fn discard(&self, job: &GpuJob) -> ApiResult<()> {
        let archive = job.spec.source.as_ref().and_then(|source| source.archive.as_ref());
        let Some(archive) = archive else { return Ok(()) };
        let api = self.shared.ctx.client.api::<ConfigMap>(job.metadata.namespace.as_deref().unwrap_or_default());
        for name in archive.names() {
            let Some(piece) = api.get_opt(&name).await?.filter(|piece| is_own(piece, job)) else { continue };
            let preconditions = DeletePreconditions { uid: piece.metadata.uid, resource_version: None };
            match api.delete(&name, &DeleteOptions { preconditions, ..DeleteOptions::default() }).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// True where it belongs to the job and to nobody else.
fn is_own(piece: &ConfigMap, job: &GpuJob) -> bool {
    let owners = piece.metadata.owner_references.as_deref().unwrap_or_default();
    !owners.is_empty() && owners.iter().all(|owner| Some(&owner.uid) == job.metadata.uid.as_ref())
}
