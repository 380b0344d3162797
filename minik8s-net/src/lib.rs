//! Networks for minik8s: a bridge with addresses for pods, ways to the pods of other machines, service rules in nftables,
//! and cluster DNS.
//!
//! Only this crate speaks netlink and nftables. It touches nothing that does not carry its own names: the bridge, the
//! tunnel, the pods' links, routes with our mark, one table, and a state directory.

pub mod bridge;
pub mod config;
mod dns;
pub mod gateway;
mod kernel;
mod ledger;
mod link;
mod netns;
mod nft;
pub mod overlay;
mod services;
mod sysctl;

pub use bridge::BridgeNetwork;
pub use config::BridgeConfig;
pub use dns::{HostTable, Hosts, SHARED_DOMAINS, lookup};
pub use overlay::OverlayConfig;
