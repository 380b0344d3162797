//! Tests against a real containerd, a private one each.

mod basics;
mod harness;
mod streams;
