//! The API server: registry of kinds, verbs, watch cache, and the REST and gRPC fronts.

mod admission;
mod api_server;
mod asked;
pub mod auth;
pub(crate) mod bootstrap;
mod cache;
mod discovery;
mod door;
mod encode;
pub mod grpc;
mod health;
pub(crate) mod keys;
mod kind;
pub mod kinds;
pub mod kubeconfig;
mod links;
pub mod listen;
mod metrics;
mod peers;
pub(crate) mod presence;
mod printing;
mod registry;
pub mod rest;
pub(crate) mod scrape;
pub(crate) mod sidecar;
pub mod tls;
pub(crate) mod usage;
mod verbs;
mod volume;

pub use admission::{Admission, AdmissionRequest};
pub use api_server::{ApiServer, ApiServerBuilder};
pub use cache::WatchSettings;
pub use door::HttpDoor;
pub use health::Health;
pub use kind::{
    ActionNames, Beside, Claim, Column, Computed, DeletionRule, Effect, FieldErrors, Kind, KindNames, NameRule,
    Readable, Reading, ScalePaths, SelectableField, Settings, WriteContext,
};
pub use metrics::{Metrics, serve_page};
pub use peers::Peers;
pub use registry::{ANYTHING, KindTable, Registry};
pub use sidecar::Sidecar;
