//! Clients of the API: the transport, the typed client, informers, work queues and events.
//!
//! Everything that is not the server itself talks to the API through here, in the same process or across machines:
//! a [`Client`] wraps any [`Transport`]. Control loops are built from an [`Informer`] (what is), a [`WorkQueue`] (what
//! to look at next) and an [`EventRecorder`] (what to tell people).

mod api;
mod backoff;
mod dial;
mod election;
mod events;
mod grpc;
mod informer;
mod informers;
mod queue;
mod servers;
pub(crate) mod tls;
mod transport;

pub use api::{Api, ApiResource, Client, List, TypedEvent, TypedWatch, key_of, object_key, reference_of};
pub use backoff::Backoff;
pub use election::{CANDIDATE_LABEL, Election, ElectionConfig, METRICS_ANNOTATION};
pub use events::{EventRecorder, EventType};
pub use grpc::{GrpcConfig, GrpcTransport};
pub use informer::{Change, Changes, Informer, InformerOptions};
pub use informers::Informers;
pub use queue::{QueueCounts, WorkQueue};
pub use servers::Servers;
pub use tls::ClientIdentity;
pub use transport::{
    DeleteOptions, DeletePreconditions, Deleted, FieldValidation, ListOptions, PatchType, Payload, Propagation,
    SharedTransport, Transport, VersionMatch, WatchOptions, WatchStream, WriteOptions, Written,
};
