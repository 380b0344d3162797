//! HTTP/1.1 (RFC 9112) as a gateway needs it: heads are read whole and strictly, bodies pass as they come, and whoever
//! serves a request moves the bytes of both its connections. There is no task, channel or timer for each request, which
//! is most of what a library for all uses costs here. HTTP/2 is left to one.

mod decode;
mod encode;
mod endpoint;
mod head;
mod io;
mod serve;
mod tunnel;
mod upload;

pub(super) use decode::BadChunk;
pub(super) use endpoint::{Http1, Unsent};
pub(super) use serve::{Client, LINGER, serve};
pub(super) use tunnel::Tunnel;
pub(super) use upload::Upload;
