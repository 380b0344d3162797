//! The node agent: makes the pods bound to its node real, and reports truthfully about them.

mod access;

pub use access::{ContainerRef, LogOptions, NodeAccess, NodeDirectory};
