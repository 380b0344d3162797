//! Work inside another network namespace: on a thread of its own that enters it and ends, never by forking.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use tokio::sync::oneshot;

/// Runs `work` on a fresh thread inside `namespace`. What is opened there (sockets) stays there after the thread ended.
///
/// # Errors
/// What entering says; the thread cannot be made.
pub(crate) async fn inside<T: Send + 'static>(
    namespace: File,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        let _entered = runtime.enter();
        let answer = setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from).map(|()| work());
        let _ = done.send(answer);
    })?;
    result.await.map_err(|_| io::Error::other("the work inside of the namespace panicked"))?
}
