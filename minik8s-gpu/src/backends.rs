//! From a `JobCluster` to what reaches it.

use crate::kinds::JobCluster;
use async_trait::async_trait;
use minik8s_core::client::Client;
use minik8s_core::job::SharedJobBackend;

/// Why a cluster cannot be reached as it is described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// One word.
    pub reason: &'static str,
    /// A sentence, with the way out.
    pub message: String,
}

/// Makes backends of clusters.
#[async_trait]
pub trait Backends: Send + Sync + 'static {
    /// The backend of a cluster. Keys are read anew each time.
    ///
    /// # Errors
    /// Where the description cannot work as it is.
    async fn open(&self, cluster: &JobCluster, client: &Client) -> Result<SharedJobBackend, Problem>;
}
