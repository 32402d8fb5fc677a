//! What is read and replaced: elements from a list that is filled once, so that memory is
//! valid whatever the engine does, and what a reader finds wrong is a finding and no crash.
//!
//! | state | `age` | left by | to |
//! |---|---|---|---|
//! | free: poisoned, on the free list | 0 | [`Elements::take`] | new |
//! | new: marked, not yet seen by others | 0 | [`Elements::publish`] | current |
//! | current: readers find it | 0 | the next `publish` | retired |
//! | retired: no reader finds it any more | 1 to [`PIPE`] | [`Elements::grow_older`], each time a grace period is over | retired, and after the last time free |
//!
//! A reader that found the element current and is still in its section sees an age of 0 or,
//! if it was replaced meanwhile, 1. More means that a grace period did not wait for it.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use platform::{Platform, lock::IrqSpinLock, lock_class};

use super::callback::Callback;

/// How many ages there are. An element is freed after one grace period less.
pub const PIPE: usize = 10;
/// How many elements there are.
pub const ELEMENTS: usize = 16 * PIPE;
/// No element.
const NONE: usize = usize::MAX;
/// What the marks of a free element are.
const POISON: u64 = 0x6b6b_6b6b_6b6b_6b6b;
/// Words that a reader checks.
const MARKS: usize = 4;

lock_class! {
    /// Free elements of the torture.
    struct FreeElements = ("torture elements", 46);
}

/// One of them.
#[derive(Debug)]
#[repr(C)]
pub struct Element {
    /// First, so that its address is the element's.
    pub callback: Callback,
    age: AtomicU32,
    /// 1 from before it is published until it is freed.
    ordered: AtomicU32,
    /// All the same, and another value each time; [`POISON`] while it is free.
    marks: [AtomicU64; MARKS],
}

/// What a reader found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// All is well: the value of the marks.
    Good(u64),
    /// The element is free, or half written.
    Damaged,
    /// What was written before it was published is not seen.
    Unordered,
}

impl Element {
    fn new() -> Self {
        Self {
            callback: Callback::new(),
            age: AtomicU32::new(0),
            ordered: AtomicU32::new(0),
            marks: [const { AtomicU64::new(POISON) }; MARKS],
        }
    }

    // Relaxed in all of these: what makes them right is that the element was published by a
    // Release and that grace periods order the rest, which is what is being tested.

    /// How many grace periods have passed since it was replaced, and one; 0 before.
    pub fn age(&self) -> usize {
        self.age.load(Ordering::Relaxed) as usize
    }

    /// Looks at all of it.
    pub fn look(&self) -> Look {
        if self.ordered.load(Ordering::Relaxed) == 0 {
            return Look::Unordered;
        }
        let first = self.marks[0].load(Ordering::Relaxed);
        let same = |mark: &AtomicU64| mark.load(Ordering::Relaxed) == first;
        if first != POISON && self.marks.iter().all(same) {
            Look::Good(first)
        } else {
            Look::Damaged
        }
    }

    fn mark(&self, value: u64) {
        for mark in &self.marks {
            mark.store(value, Ordering::Relaxed);
        }
    }
}

/// All of them.
pub struct Elements<P: Platform> {
    all: Vec<Element>,
    /// The index of the current one.
    current: AtomicUsize,
    free: IrqSpinLock<Free, P, FreeElements>,
    /// How often an element was made current: what it is marked with.
    pub version: AtomicU64,
    /// Elements taken from the free list.
    pub taken: AtomicU64,
    /// Times when there was none to take.
    pub none_left: AtomicU64,
    /// Elements put on the free list.
    pub freed: AtomicU64,
    /// How many elements came to each age; one more for ages that there should not be.
    pub circulation: [AtomicU64; PIPE + 1],
}

/// The free list, first in, first out, so that an element rests as long as possible.
struct Free {
    ring: [u16; ELEMENTS],
    first: usize,
    len: usize,
}

impl<P: Platform> Elements<P> {
    /// All free. `None`: no memory.
    pub fn try_new() -> Option<Self> {
        let mut all = Vec::new();
        all.try_reserve_exact(ELEMENTS).ok()?;
        all.extend((0..ELEMENTS).map(|_| Element::new()));
        let free = Free {
            ring: core::array::from_fn(|index| index as u16),
            first: 0,
            len: ELEMENTS,
        };
        Some(Self {
            all,
            current: AtomicUsize::new(NONE),
            free: IrqSpinLock::new(free),
            version: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            none_left: AtomicU64::new(0),
            freed: AtomicU64::new(0),
            circulation: [const { AtomicU64::new(0) }; PIPE + 1],
        })
    }

    /// Element number `index`.
    pub fn get(&self, index: usize) -> &Element {
        &self.all[index]
    }

    /// The number of the element that a callback is in.
    pub fn index_of(&self, callback: &Callback) -> usize {
        let offset = core::ptr::from_ref(callback).addr() - self.all.as_ptr().addr();
        offset / size_of::<Element>()
    }

    /// The number of the current one, in a section. Any context.
    pub fn current(&self) -> Option<usize> {
        // Acquire pairs with the Release in `publish`.
        match self.current.load(Ordering::Acquire) {
            NONE => None,
            index => Some(index),
        }
    }

    /// A new one.
    pub fn take(&self) -> Option<usize> {
        let index = {
            let mut free = self.free.lock();
            match free.len.checked_sub(1) {
                None => {
                    self.none_left.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                Some(left) => free.len = left,
            }
            let index = free.ring[free.first];
            free.first = (free.first + 1) % ELEMENTS;
            usize::from(index)
        };
        self.taken.fetch_add(1, Ordering::Relaxed);
        let element = &self.all[index];
        element.age.store(0, Ordering::Relaxed);
        // Whoever sees the marks change sees that it was freed: for readers that should not
        // be there.
        fence(Ordering::Release);
        element.mark(self.version.fetch_add(1, Ordering::Relaxed) + 1);
        element.ordered.store(1, Ordering::Relaxed);
        Some(index)
    }

    /// Makes a new one current. The number of the one that was, now retired.
    pub fn publish(&self, index: usize) -> Option<usize> {
        // Release: a reader that finds it finds it whole. Acquire: its retirement comes after
        // what its publisher did.
        let old = self.current.swap(index, Ordering::AcqRel);
        self.retire(old)
    }

    /// Ends the reading: there is no current one.
    pub fn withdraw(&self) -> Option<usize> {
        let old = self.current.swap(NONE, Ordering::AcqRel);
        self.retire(old)
    }

    fn retire(&self, index: usize) -> Option<usize> {
        if index == NONE {
            return None;
        }
        self.all[index].age.store(1, Ordering::Relaxed);
        self.circulation[0].fetch_add(1, Ordering::Relaxed);
        Some(index)
    }

    /// A grace period is over that began after the element was retired. Whether that was the
    /// last one, and it is free.
    pub fn grow_older(&self, index: usize) -> bool {
        let element = &self.all[index];
        let age = element.age.load(Ordering::Relaxed) as usize;
        self.circulation[age.min(PIPE)].fetch_add(1, Ordering::Relaxed);
        element.age.store(age as u32 + 1, Ordering::Relaxed);
        if age + 1 < PIPE {
            return false;
        }
        element.ordered.store(0, Ordering::Relaxed);
        element.mark(POISON);
        self.freed.fetch_add(1, Ordering::Relaxed);
        let mut free = self.free.lock();
        let last = (free.first + free.len) % ELEMENTS;
        free.ring[last] = index as u16;
        free.len += 1;
        true
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.free.lock().len
    }
}
