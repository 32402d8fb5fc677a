//! Pseudo-random numbers for tests: small, seeded, the same on every machine.
//!
//! Not for secrets. The generator is SplitMix64 (Steele, Lea and Flood, "Fast
//! Splittable Pseudorandom Number Generators", OOPSLA 2014), with the constants
//! that Vigna's public-domain reference version uses.

/// A generator of pseudo-random numbers: 2^64 of them before they repeat.
///
/// ```
/// use kernel_base::rng::Rng;
/// let mut order = [0, 1, 2, 3, 4];
/// Rng::new(7).shuffle(&mut order);
/// let mut again = [0, 1, 2, 3, 4];
/// Rng::new(7).shuffle(&mut again);
/// assert_eq!(order, again);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator; equal seeds give equal numbers.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number, any of 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0. For a bound of b each number
    /// comes as often as any other to within b in 2^64.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: no division.
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }

    /// Brings `items` into an order of which each is as likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// A generator for something else that starts from this one's next number,
    /// so that the two do not disturb each other.
    pub const fn split(&mut self) -> Self {
        Self::new(self.next_u64())
    }
}
