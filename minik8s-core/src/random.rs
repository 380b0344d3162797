//! The one place randomness comes from: jitter for whoever waits, and the server's own dice, which a seed makes
//! repeatable. A simulation seeds its whole thread.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cell::RefCell;

thread_local! {
    /// The dice of a thread that runs a simulation.
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// A number from 0 (included) to 1 (excluded), for jitter.
pub fn fraction() -> f64 {
    SEEDED.with_borrow_mut(|dice| dice.as_mut().map_or_else(rand::random, |dice| dice.random()))
}

/// Makes the jitter of this thread repeatable.
#[cfg(feature = "testkit")]
pub(crate) fn seed_thread(seed: u64) {
    SEEDED.set(Some(StdRng::seed_from_u64(seed)));
}

/// Whether this thread runs a simulation.
pub(crate) fn is_seeded() -> bool {
    SEEDED.with_borrow(Option::is_some)
}

/// A secret of this many small letters and digits, from a generator fit for keys.
pub fn word(length: usize) -> String {
    let mut rng = rand::rng();
    (0..length).map(|_| LETTERS[rng.random_range(0..LETTERS.len())] as char).collect()
}

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Letters that make neither words nor look-alikes.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// All randomness of a server: identities, generated names, allocations. Seeded once, so that a run can be repeated.
pub(crate) struct Dice(Mutex<StdRng>);

impl Dice {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(Mutex::new(seed.map_or_else(|| StdRng::from_rng(&mut rand::rng()), StdRng::seed_from_u64)))
    }

    /// A new identity.
    pub(crate) fn uid(&self) -> String {
        let bytes: [u8; 16] = self.0.lock().random();
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// Five letters for `generateName`.
    pub(crate) fn suffix(&self) -> String {
        let mut rng = self.0.lock();
        (0..5).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char).collect()
    }

    /// A number below `end`, or 0 where `end` is 0.
    pub(crate) fn below(&self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.lock().random_range(0..end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let (a, b) = (Dice::new(Some(7)), Dice::new(Some(7)));
        assert_eq!((a.uid(), a.suffix(), a.below(100)), (b.uid(), b.suffix(), b.below(100)));
        assert_ne!(a.uid(), a.uid());
        assert_eq!(a.suffix().len(), 5);
    }
}
