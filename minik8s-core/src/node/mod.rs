//! The node agent: makes the pods bound to its node real, and reports truthfully about them.

#![allow(dead_code, unused_imports)]
mod access;
mod ids;
mod lifecycle;
mod pod;
mod spec;
mod volumes;

pub use access::{ContainerRef, LogOptions, NodeAccess, NodeDirectory};
