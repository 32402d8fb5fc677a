//! Numbers that a seed decides.
//!
//! The generator is SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
//! Generators", OOPSLA 2014): any state will do, so that many generators can be made of one
//! seed, and a step is an addition, which can be an atomic one.

use core::sync::atomic::{AtomicU64, Ordering};

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One thread's numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Those number `stream` of `seed`.
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream.wrapping_add(STEP))))
    }

    /// The next one, any of 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// The next one, below `bound`; 0 if `bound` is.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    /// The next one, from `low` to below `high`.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low))
    }

    /// True once in `count` times.
    pub const fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// Numbers for all who have no thread to keep a generator: any context.
#[derive(Debug)]
pub struct Shared(AtomicU64);

impl Shared {
    /// Those of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(mix(seed)))
    }

    /// A generator that nobody else has.
    pub fn split(&self) -> Random {
        // Relaxed: each gets another value, and nothing else is passed on.
        Random::new(self.0.fetch_add(STEP, Ordering::Relaxed), 0)
    }
}
