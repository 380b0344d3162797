//! Doing what steps ask for: the one door from a run to the world.

use super::machine::Failure;
use super::program::Target;
use async_trait::async_trait;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::Notify;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// Names this attempt: what is asked for again after a crash has the same key, and should be done once.
    pub key: String,
    /// The namespace of the run.
    pub namespace: String,
    /// The run.
    pub run: String,
    /// The step, for people.
    pub step: String,
    /// What to do.
    pub target: Target,
    /// With what.
    pub input: Value,
}

/// A sign of life of something that takes long. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<Notify>);

impl Heartbeat {
    /// It is alive.
    pub fn beat(&self) {
        self.0.notify_one();
    }

    /// The next sign of life.
    pub async fn heard(&self) {
        self.0.notified().await;
    }
}

/// Does what steps ask for. Called from many tasks at once; a call that nobody waits for any more is dropped, at any
/// await.
///
/// The names of failures are what `retry` and `catch` speak of: `NotFound` (there is no such function), `Unavailable` (it
/// may be there later), `Timeout`, `Refused` (it cannot work with the input), `TaskFailed` (it broke), `BadAnswer` (its
/// answer is not JSON), `NotAllowed` (the configuration forbids it).
///
/// ```
/// use minik8s_serverless::workflow::{Failure, Heartbeat, Invocation, Invoker};
/// use serde_json::Value;
///
/// struct Echo;
///
/// #[async_trait::async_trait]
/// impl Invoker for Echo {
///     async fn invoke(&self, call: &Invocation, _: &Heartbeat) -> Result<Value, Failure> {
///         Ok(call.input.clone())
///     }
/// }
/// ```
#[async_trait]
pub trait Invoker: Send + Sync + 'static {
    /// Does it, and answers with what came out. `alive` is to be told whenever there is a sign of life.
    async fn invoke(&self, call: &Invocation, alive: &Heartbeat) -> Result<Value, Failure>;

    /// Nobody waits for this any more: what is left of it may go. Not called where the process ends, which another one
    /// goes on from.
    async fn abandon(&self, _call: &Invocation) {}
}
