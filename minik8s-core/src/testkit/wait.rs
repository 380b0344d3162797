//! Waiting on conditions, with a bound and a message.

use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// Asks `probe` until it answers `Some`, and returns that.
///
/// # Panics
/// Where it does not within `bound`; the message names `what`.
pub async fn until<T, F, Fut>(what: &str, bound: Duration, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let end = Instant::now() + bound;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < end, "gave up after {bound:?} waiting until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
