//! Tables of the arithmetic. Where a case is from the documentation of Kubernetes or from upstream's own tests, it says so.

mod decisions;
mod proposals;
mod speeds;

use jiff::{SignedDuration, Timestamp};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::Instant;

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

/// The same by the clock that nobody sets.
pub(super) fn moment(seconds: i64) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START + Duration::from_secs(u64::try_from(1_000_000 + seconds).unwrap())
}

pub(super) fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}
