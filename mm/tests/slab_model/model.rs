//! What is held: where, how large, and what is in it.

use std::{
    collections::BTreeMap,
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use mm::slab::layout::ObjectLayout;

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

/// All memory that is held, by address: start and end.
#[derive(Default)]
pub struct Model(Mutex<BTreeMap<usize, usize>>);

/// What the word number `index` of memory at `at` is filled with.
fn pattern(at: NonNull<u8>, seed: u64, index: usize) -> u64 {
    (seed ^ at.addr().get() as u64)
        .wrapping_add(index as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Model {
    /// Nothing in `f` is a point, so that no interrupt finds the lock taken.
    fn with<R>(&self, f: impl FnOnce(&mut BTreeMap<usize, usize>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
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
        let end = start + size;
        if !start.is_multiple_of(align.max(8)) {
            let layout = whose.layout();
            panic!("{size} bytes at {start:#x} are not aligned to {align}: {layout:?}");
        }
        let other = self.with(|held| {
            let other = held.range(..end).next_back();
            let other = other.map(|(from, to)| (*from, *to));
            held.insert(start, end);
            other.filter(|(_, to)| *to > start)
        });
        assert_eq!(other, None, "{start:#x}..{end:#x} is held already");
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
        let start = held.at.addr().get();
        let end = self.with(|all| all.remove(&start));
        assert_eq!(end, Some(start + held.size), "{start:#x} is not held so");
    }

    /// Nothing is held.
    #[track_caller]
    pub fn assert_empty(&self) {
        let left = self.with(|held| held.len());
        assert_eq!(left, 0, "so many are still held");
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
