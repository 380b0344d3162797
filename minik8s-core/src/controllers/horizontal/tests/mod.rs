//! Tables of the arithmetic. Where a case is from the documentation of Kubernetes or from upstream's own tests, it says so.

mod decisions;
mod proposals;
mod speeds;

use jiff::{SignedDuration, Timestamp};

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

pub(super) fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}
