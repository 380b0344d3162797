//! The cluster's names: a server for its own domain that passes everything else on.
//!
//! [`zone`] knows the answers, straight from the table of services; [`reply`] shapes messages; [`upstream`] asks other
//! servers; [`server`] listens.

mod client;
mod hosts;
mod reply;
mod server;
mod upstream;
mod zone;

pub use client::lookup;
pub(crate) use hosts::Askers;
pub use hosts::{HostTable, Hosts, SHARED_DOMAINS};
pub(crate) use server::{DnsServer, Names};
pub(crate) use upstream::Upstreams;
pub(crate) use zone::Zone;
