#![doc = "A Kubernetes cluster as a library."]
#![warn(missing_docs)]

pub mod api;
pub mod beneath;
mod blocking;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod controllers;
pub mod devices;
pub mod digest;
pub mod grpc;
pub mod job;
pub mod join;
pub mod network;
pub mod node;
mod pieces;
pub mod random;
pub mod routing;
pub mod runtime;
pub mod scheduler;
pub mod server;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
