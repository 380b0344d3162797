//! The gRPC form of the API: generated messages, and how they translate to and from the crate's own types. The two ends
//! are [`server::grpc`](crate::server::grpc) and [`GrpcTransport`](crate::client::GrpcTransport); of the way from the
//! server to a node they are `node::remote` and `node::service`.

pub(crate) mod convert;
pub(crate) mod error;
mod files;
pub(crate) mod pipe;
#[cfg(test)]
mod tests;

/// Largest message that either end takes: an object of the largest size and its envelope.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;

/// What `proto/minik8s/v1` compiles to.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("minik8s.v1");
}
