//! The API server: registry of kinds, verbs, watch cache, and the REST and gRPC fronts.

mod admission;
mod api_server;
mod bootstrap;
mod cache;
mod encode;
pub mod grpc;
mod keys;
mod kind;
pub mod kinds;
mod metrics;
mod registry;
mod rng;
mod verbs;

pub use admission::{Admission, AdmissionRequest};
pub use api_server::{ApiServer, ApiServerBuilder};
pub use cache::WatchSettings;
pub use kind::{
    ActionNames, Claim, Column, DeletionRule, Effect, FieldErrors, Kind, KindNames, NameRule, ScalePaths,
    SelectableField, Settings, WriteContext,
};
pub use metrics::Metrics;
pub use registry::{KindTable, Registry};
