//! The gateway: HTTP/1.1, HTTP/2, WebSockets and gRPC from outside to the endpoints of Services, with TLS by name.
//!
//! [`Gateway`] is told three things, each whole and at any time: the routes ([`Gateway::set_routes`]), the Services with
//! their endpoints ([`Gateway::set_services`]) and the certificates ([`Gateway::set_secrets`]). Requests that run go on
//! with what they began with. It goes to endpoints directly, not through the virtual address of a Service, as only so it
//! can choose the least busy one, leave out those that fail, and keep connections.

mod backend;
mod body;
mod canaries;
mod demand;
mod front;
mod http1;
mod lanes;
mod metrics;
mod node;
mod proxy;
mod secrets;
mod serve;
mod silence;
mod sockets;
mod spelling;
mod split;
mod streams;
mod table;
mod tls;

pub use front::{Gateway, GatewayConfig};
pub use metrics::GatewayMetrics;
pub use node::NodeGateway;
pub use serve::listener;
pub use sockets::Sockets;
pub use table::RoutingTable;
pub use tls::TlsSecret;
