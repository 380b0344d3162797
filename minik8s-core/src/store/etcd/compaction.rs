//! Forgets history that is old enough, because etcd does not on its own. Every store does so for itself: each compacts to
//! what it saw one period ago, so that several of them still leave at least one period of history.

use super::Shared;
use crate::api::Revision;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Starts the task; it ends once the store is gone.
pub(super) fn start(shared: &Arc<Shared>) {
    if let Some(period) = shared.options.compact_every {
        tokio::spawn(run(Arc::downgrade(shared), period));
    }
}

async fn run(shared: Weak<Shared>, period: Duration) {
    let mut seen: Option<Revision> = None;
    loop {
        tokio::time::sleep(period).await;
        let Some(shared) = shared.upgrade() else { return };
        if let Some(revision) = seen
            && let Err(error) = shared.compact(revision).await
        {
            tracing::warn!(%error, revision, "etcd was not compacted, trying again later");
        }
        seen = shared.revision().await.ok();
    }
}
