//! The node agent against the real API server, on a fake runtime.

mod chaos;
mod failures;
mod lifecycle;
mod link;
mod objects;
mod record;
mod recovery;
mod world;
