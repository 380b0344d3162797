//! The node agent: makes the pods bound to its node real, and reports truthfully about them.
//!
//! One worker per pod looks at the record and at the runtime, decides (`lifecycle`, without doing anything), acts and
//! reports. The agent keeps nothing that it could not find again from the runtime and the API: it can be killed at any
//! instant. It is the only writer of pods' status.

mod access;
mod agent;
mod companion;
mod config;
mod context;
mod discard;
mod elsewhere;
mod eviction;
mod forward;
mod hooks;
pub(crate) mod ids;
mod images;
mod lease;
mod lifecycle;
mod links;
mod logs;
mod machine;
mod notify;
mod pod;
mod pods;
mod probe;
mod proxy;
mod range;
mod recover;
mod refs;
mod register;
mod remote;
mod service;
mod spec;
mod status;
mod status_sync;
mod streams;
mod volumes;
mod worker;

pub(crate) use access::no_volumes;
pub use access::{
    ContainerRef, ContainerUsage, FilesWish, LogOptions, MachineUsage, NodeAccess, NodeDirectory, NodeUsage, PodRef,
    VolumeFile, VolumeRef,
};
pub use agent::{NodeAgent, NodeAgentBuilder};
pub use companion::{Companion, CompanionContext};
pub use config::{NodeCapacity, NodeConfig};
pub use discard::NodeImages;
pub use ids::{ATTEMPT, BACKOFF_STEP, CONTAINER_NAME, IMAGE, POD_NAME, POD_NAMESPACE, POD_UID};
pub(crate) use links::{follow_servers, serve_links, server_url};
pub use pod::PAUSED;
pub(crate) use pod::is_to_pause;
pub(crate) use refs::Names as RefNames;
pub(crate) use remote::RemoteNode;
pub use service::serve_link;
