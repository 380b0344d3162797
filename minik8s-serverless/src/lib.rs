//! Functions, workflows and triggers for minik8s.
//!
//! This crate holds nothing yet. It exists to reserve its place in the star: it will depend on `minik8s-core` alone and
//! bring its kinds and controllers through `minik8s_core::cluster::Extension`, the same door a user's crate has.
