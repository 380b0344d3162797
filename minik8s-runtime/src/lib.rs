//! Container runtimes for minik8s: [`ContainerdRuntime`] drives containerd through its own gRPC API, over its socket;
//! [`PrivateContainerd`] starts a containerd that disturbs nothing on the host.
//!
//! What lives here: sandboxes, containers, images, their logs and streams. What does not: networks (the sandbox's
//! network namespace is left empty but for loopback), and any knowledge of pods or of the API.
#![warn(missing_docs)]

mod cgroup;
mod config;
mod connection;
mod containers;
mod contract;
mod events;
mod images;
mod leftovers;
mod locks;
pub mod log_driver;
mod oom;
mod private;
mod problems;
mod runtime;
mod sandbox;
mod spec;
mod streams;
mod sys;
pub mod testing;
mod volumes;

pub use config::{ContainerdConfig, Mirror};
pub use images::{BuildError, ImageBuilder, ImageName, RemoteImage, normalize};
pub use private::{PrivateContainerd, PrivateError};
pub use runtime::ContainerdRuntime;
