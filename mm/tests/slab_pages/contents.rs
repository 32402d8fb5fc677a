//! What owners write to their objects, and find there again.

use std::ptr::NonNull;

use mm::slab::KmemCache;
use platform::hosted::Hosted;

/// A generator of numbers: SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// An object that is full of a pattern of its own.
pub struct Filled {
    object: NonNull<u8>,
    bytes: usize,
    seed: u64,
}

impl Filled {
    /// Fills all that may be used of an object.
    pub fn new(cache: &KmemCache<Hosted>, object: NonNull<u8>, seed: u64) -> Self {
        let bytes = cache.layout().usable as usize;
        let align = cache.layout().align as usize;
        assert!(object.addr().get().is_multiple_of(align), "{object:p}");
        let mut random = Random(seed);
        for at in 0..bytes {
            // SAFETY: the object is the caller's.
            unsafe { object.add(at).write(random.next() as u8) };
        }
        Self {
            object,
            bytes,
            seed,
        }
    }

    /// The object, if nobody else wrote to it.
    #[track_caller]
    pub fn verify(self) -> NonNull<u8> {
        let mut random = Random(self.seed);
        for at in 0..self.bytes {
            // SAFETY: as above.
            let byte = unsafe { self.object.add(at).read() };
            assert_eq!(byte, random.next() as u8, "byte {at} of {:p}", self.object);
        }
        self.object
    }

    /// The objects.
    pub fn all(these: &[Self]) -> Vec<NonNull<u8>> {
        these.iter().map(|filled| filled.object).collect()
    }
}
