//! The one place randomness comes from.

/// A number from 0 (included) to 1 (excluded), for jitter.
pub fn fraction() -> f64 {
    rand::random()
}
