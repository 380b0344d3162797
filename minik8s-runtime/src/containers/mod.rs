//! Containers: containerd's record and snapshot, our record beside them, and the task that runs.
//!
//! containerd forgets how a task ended once it is deleted, and a task not deleted keeps its shim in memory. So an exit is
//! written down here ([`files`]) and the task deleted at once, whoever sees it first: the event loop or a call.

mod create;
mod exits;
mod files;
mod info;
mod pause;
mod record;
mod remove;
mod start;
mod stats;
mod stop;

pub(crate) use create::SPEC_TYPE;
pub(crate) use files::ContainerFiles;
pub(crate) use record::{EXTENSION, Record, SANDBOX_LABEL, containerd_id};
pub(crate) use start::{TaskIo, plain_cause};

use containerd_client::types::v1::{Process, Status};
use minik8s_core::runtime::{RuntimeError, RuntimeResult};

fn refused(operation: &'static str, id: &str) -> impl Fn(String) -> RuntimeError + use<> {
    let id = id.to_owned();
    move |cause| RuntimeError::Container { operation, id: id.clone(), cause }
}

/// Refuses an operation that needs a running main process.
pub(crate) fn wrong_state(
    id: &str,
    process: Option<&Process>,
    started: bool,
    operation: &'static str,
) -> RuntimeResult<()> {
    let state = match process.map(Process::status) {
        Some(Status::Running) => return Ok(()),
        Some(Status::Paused | Status::Pausing) => "paused",
        Some(Status::Stopped) => "exited",
        None if started => "exited",
        _ => "created",
    };
    Err(RuntimeError::WrongState { name: id.to_owned(), state, operation })
}
