//! Tests against the kernel. Each runs on a machine of its own: fresh network namespaces, entered by threads of this
//! process. The real host is never touched, and nothing outlives the process, however it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod changing;
mod conflicts;
mod gateway;
mod golden;
mod gone;
mod machine;
mod names;
mod overlay;
mod rights;
mod suite;
mod traffic;
