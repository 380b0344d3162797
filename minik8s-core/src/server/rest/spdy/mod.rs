//! SPDY/3.1, the server's end of the subset that port-forwarding uses: streams that the client opens, data both ways, and
//! no flow control per stream, since the peers (Go's spdystream) neither send nor heed window updates.
//!
//! `frame` knows bytes, `headers` their compression, `session` the streams. A stream that is not read for long holds up
//! the others of its connection: without windows, waiting is the only way to bound what is kept.

mod frame;
mod headers;
mod session;

pub(crate) use frame::Reset;
pub(crate) use session::{Incoming, serve};

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpdyError {
    /// Its bytes ended or broke.
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    /// Something is larger than it may be.
    #[error("{what} beyond the limit of {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large it may be.
        limit: usize,
    },
    /// A frame that cannot be.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
    /// A header block that cannot be read.
    #[error("unreadable headers: {0}")]
    Headers(String),
}
