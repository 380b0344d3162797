//! Where requests go: ports of Services, their endpoints, and the connections to those. Outlives routing tables.

mod cluster;
mod connection;
mod endpoint;
mod line;

pub(super) use cluster::{Cluster, Clusters};
pub(super) use endpoint::Lease;
pub(super) use line::Unserved;
