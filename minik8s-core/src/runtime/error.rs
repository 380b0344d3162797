//! Why a runtime refuses.

/// Why a runtime refused.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The thing named does not exist.
    #[error("{what} {name} not found")]
    NotFound {
        /// `image`, `container`, `sandbox`.
        what: &'static str,
        /// Which one.
        name: String,
    },
    /// The image's name cannot be read.
    #[error("invalid image name {name:?}: {cause}")]
    InvalidImageName {
        /// As given.
        name: String,
        /// Why.
        cause: String,
    },
    /// The image could not be pulled.
    #[error("failed to pull {image}: {cause}")]
    Pull {
        /// As given.
        image: String,
        /// Why: unknown name, no access, no network, digest mismatch.
        cause: String,
    },
    /// The container could not be made or started: its command is missing, a mount does not exist, …
    #[error("failed to {operation} container {id}: {cause}")]
    Container {
        /// `create` or `start`.
        operation: &'static str,
        /// Which one.
        id: String,
        /// Why.
        cause: String,
    },
    /// The call does not fit the state, such as exec in an exited container.
    #[error("{name} is {state}, cannot {operation}")]
    WrongState {
        /// Which one.
        name: String,
        /// Its state.
        state: &'static str,
        /// What was asked for.
        operation: &'static str,
    },
    /// Nobody took a connection.
    #[error("failed to connect to localhost:{port} inside namespace {sandbox:?}: {cause}")]
    Refused {
        /// The sandbox.
        sandbox: String,
        /// The port in it.
        port: u16,
        /// Why: nobody listens, mostly.
        cause: String,
    },
    /// Not something this implementation can do; see [`RuntimeCapabilities`](super::RuntimeCapabilities).
    #[error("not supported by this runtime: {0}")]
    Unsupported(&'static str),
    /// The call's arguments break a rule.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The runtime cannot answer now.
    #[error("runtime unavailable while {operation}: {cause}")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        cause: String,
    },
}

/// Result of a runtime call.
pub type RuntimeResult<T> = Result<T, RuntimeError>;
