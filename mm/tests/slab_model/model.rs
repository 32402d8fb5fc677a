//! What is held: where, how large, and what is in it.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use mm::{Mm, PAGE_SIZE, slab::layout::ObjectLayout};
use platform::hosted::Hosted;

use super::caches::Made;

/// Whose memory it is.
#[derive(Clone)]
pub enum Whose {
    /// An object of a cache.
    Cache(Arc<Made>),
    /// Of the kmalloc family.
    Kmalloc,
}

impl Whose {
    /// The name of the cache, and how its objects lie; nothing for kmalloc.
    fn layout(&self) -> Option<(&str, ObjectLayout)> {
        match self {
            Self::Cache(made) => Some((made.cache.name().as_str(), *made.cache.layout())),
            Self::Kmalloc => None,
        }
    }
}

/// Memory that somebody holds.
pub struct Held {
    pub at: NonNull<u8>,
    pub size: usize,
    pub whose: Whose,
    seed: u64,
}

// SAFETY: the memory belongs to who has this.
unsafe impl Send for Held {}

/// All memory that is held: a bit for each 8 bytes.
///
/// Without a lock, and with nothing but relaxed accesses: these order nothing, so that what orders the accesses of an
/// object's users, one after the other, is the allocator alone. The thread sanitizer looks at that.
pub struct Model {
    /// The first byte's address.
    base: usize,
    bits: Box<[AtomicU64]>,
}

/// Bytes that a bit is for; objects share none.
const UNIT: usize = 8;
/// Bytes that a word of bits is for.
const SPAN: usize = 64 * UNIT;

/// What the word number `index` of memory at `at` is filled with.
fn pattern(at: NonNull<u8>, seed: u64, index: usize) -> u64 {
    (seed ^ at.addr().get() as u64)
        .wrapping_add(index as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Model {
    /// Nothing of this memory is held.
    pub fn new(mm: &Mm<Hosted>) -> Self {
        let frames = mm.frames();
        let bytes = frames.end().index() * PAGE_SIZE as usize;
        let bits = Box::new_zeroed_slice(bytes / SPAN);
        Self {
            base: frames.address_of(mm::Pfn(0)).addr(),
            // SAFETY: zero is a number.
            bits: unsafe { bits.assume_init() },
        }
    }

    /// Turns the bits of some memory to `to`: the address of the first that had that value already, or is no memory.
    fn turn(&self, at: usize, size: usize, to: bool) -> Result<(), usize> {
        let mut from = at - self.base;
        let end = from + size;
        while from < end {
            let stop = end.min((from / SPAN + 1) * SPAN);
            let count = (stop - from).div_ceil(UNIT);
            let mask = (u64::MAX >> (64 - count)) << (from % SPAN / UNIT);
            let word = self.bits.get(from / SPAN).ok_or(from + self.base)?;
            let was = if to {
                word.fetch_or(mask, Relaxed)
            } else {
                !word.fetch_and(!mask, Relaxed)
            };
            if was & mask != 0 {
                let unit = (was & mask).trailing_zeros() as usize;
                return Err(self.base + from / SPAN * SPAN + unit * UNIT);
            }
            from = stop;
        }
        Ok(())
    }

    /// `at` was allocated: nobody else holds any of it. It gets contents.
    #[track_caller]
    pub fn take(
        &self,
        at: NonNull<u8>,
        size: usize,
        align: usize,
        whose: Whose,
        seed: u64,
    ) -> Held {
        let start = at.addr().get();
        if !start.is_multiple_of(align.max(8)) {
            let layout = whose.layout();
            panic!("{size} bytes at {start:#x} are not aligned to {align}: {layout:?}");
        }
        if let Err(taken) = self.turn(start, size, true) {
            let of = match &whose {
                Whose::Cache(made) => made.cache.name().as_str(),
                Whose::Kmalloc => "kmalloc",
            };
            panic!("{size} bytes of {of} at {start:#x}: {taken:#x} is held already");
        }
        let held = Held {
            at,
            size,
            whose,
            seed,
        };
        held.fill();
        held
    }

    /// `held` is about to be freed: its contents are as they were.
    #[track_caller]
    pub fn give(&self, held: &Held) {
        held.check();
        if let Whose::Cache(made) = &held.whose {
            made.restore(held.at);
        }
        if let Err(free) = self.turn(held.at.addr().get(), held.size, false) {
            panic!("{held:?}: {free:#x} is not held");
        }
    }

    /// Nothing is held.
    #[track_caller]
    pub fn assert_empty(&self) {
        let held = |word: &AtomicU64| word.load(Relaxed) != 0;
        let left = self.bits.iter().position(held);
        let left = left.map(|word| self.base + word * SPAN);
        assert_eq!(left, None, "something is still held behind that address");
    }
}

impl Held {
    /// Whole words of it, then bytes.
    fn words(&self) -> usize {
        self.size / 8
    }

    fn fill(&self) {
        for index in 0..self.words() {
            // SAFETY: the holder's.
            unsafe {
                let word = self.at.cast::<u64>().add(index);
                word.write_unaligned(pattern(self.at, self.seed, index));
            }
        }
        for byte in self.words() * 8..self.size {
            // SAFETY: the holder's.
            unsafe { self.at.add(byte).write(self.seed as u8) };
        }
    }

    /// The contents are those that were written.
    #[track_caller]
    pub fn check(&self) {
        self.check_first(self.size);
    }

    /// The first `bytes` bytes are.
    #[track_caller]
    pub fn check_first(&self, bytes: usize) {
        for index in 0..bytes.min(self.words() * 8) / 8 {
            // SAFETY: the holder's.
            let word = unsafe { self.at.cast::<u64>().add(index).read_unaligned() };
            let wanted = pattern(self.at, self.seed, index);
            assert_eq!(word, wanted, "word {index} of {self:?} has changed");
        }
        for byte in self.words() * 8..bytes {
            // SAFETY: the holder's.
            let found = unsafe { self.at.add(byte).read() };
            assert_eq!(
                found, self.seed as u8,
                "byte {byte} of {self:?} has changed"
            );
        }
    }

    /// It has moved to `at`, and is `size` bytes long: what came along is what was there.
    #[track_caller]
    pub fn check_moved(&self, at: NonNull<u8>, size: usize) {
        let both = self.size.min(size) / 8;
        for index in 0..both {
            // SAFETY: the caller holds what is there.
            let word = unsafe { at.cast::<u64>().add(index).read_unaligned() };
            let wanted = pattern(self.at, self.seed, index);
            assert_eq!(word, wanted, "word {index} of {self:?} did not come along");
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whose = match &self.whose {
            Whose::Cache(made) => made.cache.name().as_str(),
            Whose::Kmalloc => "kmalloc",
        };
        write!(f, "{} bytes of {whose} at {:p}", self.size, self.at)
    }
}
