//! Why something was not stored or found.

use std::io;
use std::path::PathBuf;

/// Why something was not stored or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is no such thing.
    #[error("{0} is not here")]
    Missing(String),
    /// No API server of the cluster gave it.
    #[error("{digest} is not here, and no other API server gave it: {why}")]
    Elsewhere {
        /// What.
        digest: String,
        /// What each of them said.
        why: String,
    },
    /// Names are objects of the cluster, which could not be read or written.
    #[error("the names of images cannot be read or written: {0}")]
    Names(#[from] minik8s_core::api::ApiError),
    /// What came is not what was announced.
    #[error("what came has the digest {actual}, not {expected}")]
    Digest {
        /// As announced.
        expected: String,
        /// As found.
        actual: String,
    },
    /// Larger than may be.
    #[error("more than {0} bytes")]
    TooLarge(u64),
    /// A name or digest that cannot be one.
    #[error("{0:?} is no {1}")]
    Malformed(String, &'static str),
    /// The disk.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// Too many uploads at once, or too much in them.
    #[error("{0}: end those that are under way, or wait until they are given up")]
    Busy(String),
    /// Two requests for one upload at once.
    #[error("upload {0} is being written to by another request")]
    Contended(String),
    /// The sender broke off.
    #[error("the upload broke off: {0}")]
    BrokenOff(String),
}
