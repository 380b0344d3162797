//! Networks for minik8s: a bridge on one machine with addresses for pods, service rules in nftables, and cluster DNS.
//!
//! Only this crate speaks netlink and nftables. It touches nothing that does not carry its own names: the bridge, the
//! pods' links, one table, and a state directory.

pub mod bridge;
pub mod config;
mod dns;
mod kernel;
mod ledger;
mod link;
mod netns;
mod nft;
mod services;
mod sysctl;

pub use bridge::BridgeNetwork;
pub use config::BridgeConfig;
