//! Clients of the API: the transport, the typed client, informers and work queues.

mod transport;

pub use transport::{
    DeleteOptions, DeletePreconditions, Deleted, FieldValidation, ListOptions, PatchType, Payload, Propagation,
    SharedTransport, Transport, VersionMatch, WatchOptions, WatchStream, WriteOptions, Written,
};
