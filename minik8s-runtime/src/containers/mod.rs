//! Containers: containerd's record and snapshot, our record beside them, and the task that runs.
//!
//! containerd forgets how a task ended once it is deleted, and a task not deleted keeps its shim in memory. So an exit is
//! written down here ([`files`]) and the task deleted at once, whoever sees it first: the event loop or a call.

mod create;
mod exits;
mod files;
mod info;
mod record;
mod remove;
mod start;
mod stats;
mod stop;

pub(crate) use files::ContainerFiles;
pub(crate) use record::{EXTENSION, Record, SANDBOX_LABEL, containerd_id};
pub(crate) use start::TaskIo;

use minik8s_core::runtime::RuntimeError;

fn refused(operation: &'static str, id: &str) -> impl Fn(String) -> RuntimeError + use<> {
    let id = id.to_owned();
    move |cause| RuntimeError::Container { operation, id: id.clone(), cause }
}
