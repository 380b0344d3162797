//! Work on files, off the event loop; in a simulation, whose one thread decides what happens when, at once.

use crate::random;
use tokio::task::JoinError;

/// Does `work` where it may block.
///
/// # Errors
/// Where it panics.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if random::is_seeded() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
