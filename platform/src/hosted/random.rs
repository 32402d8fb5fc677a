//! A generator of decisions.

use core::sync::atomic::{AtomicU64, Ordering};

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64. Used by one thread at a time: the holder of a CPU's baton, or of the
/// scheduler's lock.
#[derive(Debug)]
pub(super) struct Random(AtomicU64);

impl Random {
    /// The generator `number` of those that belong to a seed.
    pub(super) fn new(seed: u64, number: usize) -> Self {
        let random = Self(AtomicU64::new(seed ^ (number as u64).wrapping_mul(STEP)));
        // One step apart, generators with neighbouring states would give the same numbers.
        let state = random.next();
        Self(AtomicU64::new(state))
    }

    /// The next 64 bits.
    pub(super) fn next(&self) -> u64 {
        // Relaxed: whoever hands on the right to use it orders the uses.
        let state = self.0.load(Ordering::Relaxed).wrapping_add(STEP);
        self.0.store(state, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True once in `n` times.
    pub(super) fn one_in(&self, n: u32) -> bool {
        self.next().is_multiple_of(u64::from(n.max(1)))
    }
}
