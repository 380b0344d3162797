//! How a crate adds to a cluster without being known to it: kinds, their schemas, and controllers.

use crate::api::schema::{SchemaError, Schemas};
use crate::controllers::Controller;
use crate::server::{HttpDoor, Kind, Peers, Sidecar};
use std::sync::Arc;

/// Something that adds kinds and controllers to a cluster. The project's own leaf crates use this door too.
pub trait Extension: Send + Sync + 'static {
    /// Name, for messages.
    fn name(&self) -> &str;

    /// Adds the types its kinds are made of.
    ///
    /// # Errors
    /// Where a type cannot be added.
    fn schemas(&self, _schemas: &mut Schemas) -> Result<(), SchemaError> {
        Ok(())
    }

    /// Its kinds.
    fn kinds(&self) -> Vec<Arc<dyn Kind>> {
        Vec::new()
    }

    /// Paths of the API server that it serves itself.
    fn doors(&self) -> Vec<Arc<dyn HttpDoor>> {
        Vec::new()
    }

    /// What it serves beside every API server, at addresses of its own, whoever leads.
    fn sidecars(&self) -> Vec<Arc<dyn Sidecar>> {
        Vec::new()
    }

    /// Loops that run beside every API server, whoever leads; `peers` are the other servers.
    fn attendants(&self, _peers: &Peers) -> Vec<Arc<dyn Controller>> {
        Vec::new()
    }

    /// Its controllers.
    fn controllers(&self) -> Vec<Arc<dyn Controller>> {
        Vec::new()
    }
}
