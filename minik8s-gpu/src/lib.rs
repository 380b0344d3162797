//! Batch and GPU jobs for minik8s: the kinds `GpuJob` and `JobCluster`, the controller that follows jobs on clusters with
//! Slurm, on nodes of the cluster itself and on this machine, and the backends that reach them. It depends on `minik8s-core` alone and comes in by
//! [`Extension`], the same door a user's crate has.

pub mod archive;
pub mod backends;
pub mod controller;
pub mod kinds;
pub mod local;
pub mod nodes;
pub mod outputs;
mod script;
pub mod slurm;
#[cfg(feature = "testkit")]
pub mod testkit;

use backends::{Backends, StandardBackends};
use controller::GpuJobController;
use kinds::{GpuJobKind, JobClusterKind};
use local::LocalConfig;
use minik8s_core::api::schema::{SchemaError, Schemas};
use minik8s_core::cluster::Extension;
use minik8s_core::controllers::Controller;
use minik8s_core::server::Kind;
use outputs::Outputs;
use std::path::PathBuf;
use std::sync::Arc;

/// Jobs, for a cluster.
pub struct GpuExtension {
    outputs: Arc<Outputs>,
    backends: Arc<dyn Backends>,
}

impl GpuExtension {
    /// Jobs on Slurm and on nodes, with all their files below `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self::with_backends(directory.into().join("output"), Arc::new(StandardBackends::remote()))
    }

    /// The same, and jobs as processes of this machine, which run as the user that this process runs as: only where whoever
    /// operates it wants that. `local` is said where its files go, below `directory`.
    pub fn with_local(directory: impl Into<PathBuf>, local: impl FnOnce(PathBuf) -> LocalConfig) -> Self {
        let directory = directory.into();
        let backends = StandardBackends::with_local(local(directory.join("local")));
        Self::with_backends(directory.join("output"), Arc::new(backends))
    }

    /// Jobs whose output is kept below `directory`, on clusters that `backends` reach.
    pub fn with_backends(directory: impl Into<PathBuf>, backends: Arc<dyn Backends>) -> Self {
        Self { outputs: Arc::new(Outputs::new(directory)), backends }
    }
}

impl Extension for GpuExtension {
    fn name(&self) -> &str {
        "gpu"
    }

    fn schemas(&self, schemas: &mut Schemas) -> Result<(), SchemaError> {
        schemas.insert_table(kinds::SCHEMA)
    }

    fn kinds(&self) -> Vec<Arc<dyn Kind>> {
        vec![Arc::new(GpuJobKind::new(self.outputs.clone())), Arc::new(JobClusterKind::new())]
    }

    fn controllers(&self) -> Vec<Arc<dyn Controller>> {
        let (backends, outputs) = (self.backends.clone(), self.outputs.clone());
        vec![Arc::new(GpuJobController { backends, outputs })]
    }
}
