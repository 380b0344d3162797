//! Randomness of the standard library, per thread repeatable: what decides the order within hash maps.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread's randomness follows from the seed.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// Fills the buffer where this thread is seeded, and says whether.
pub fn fill(buffer: &mut [u8]) -> bool {
    let Some(mut state) = STATE.get() else { return false };
    for chunk in buffer.chunks_mut(8) {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bytes = (mixed ^ (mixed >> 31)).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    STATE.set(Some(state));
    true
}

/// Fills the buffer with randomness of the machine, and says whether.
pub fn fill_from_machine(buffer: &mut [u8]) -> bool {
    let file = std::fs::File::open("/dev/urandom");
    file.and_then(|mut file| std::io::Read::read_exact(&mut file, buffer)).is_ok()
}

/// Makes the order within hash maps of simulations repeatable in this binary: say it once, outside of any function, in
/// a test binary. It defines the C function `getrandom`, which the standard library leaves open to be replaced for such
/// ends; threads that run no simulation get the machine's randomness as ever.
#[macro_export]
macro_rules! repeatable_hashing {
    () => {
        /// As getrandom(2), but repeatable on threads that run a simulation.
        #[allow(
            unsafe_code,
            reason = "the standard library asks the C library for randomness, and this takes its place"
        )]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
            use $crate::testkit::simulation::entropy;
            let mut bytes = [0; 256];
            let mut done = 0;
            while done < length {
                let part = &mut bytes[..(length - done).min(256)];
                if !entropy::fill(part) && !entropy::fill_from_machine(part) {
                    return -1;
                }
                // SAFETY: the caller promises `length` writable bytes at `buffer`, and `done + part.len()` is not more.
                unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), buffer.add(done), part.len()) };
                done += part.len();
            }
            length.cast_signed()
        }
    };
}
