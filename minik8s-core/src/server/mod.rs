//! The API server: registry of kinds, verbs, watch cache, and the REST and gRPC fronts.

pub mod grpc;
mod kind;

pub use kind::{
    ActionNames, Claim, Column, DeletionRule, FieldErrors, Kind, KindNames, NameRule, ScalePaths, SelectableField,
    Settings, WriteContext,
};
