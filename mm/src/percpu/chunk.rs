//! What of one chunk is in use: a bit for each granule, and one for each beginning.
//!
//! An allocation is a run of used granules that starts at a *beginning* and ends before the
//! next beginning or the next free granule; so its size needs no room of its own.

use core::fmt;

use super::{GRANULE, GRANULES, bits::Bits};

const WORDS: usize = GRANULES / 64;

/// Why a free was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is free already, or was never allocated.
    Free,
    /// It lies in the middle of an allocation.
    Middle,
    /// The allocation that begins there has another size, in granules.
    Size(usize),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("nothing is allocated there"),
            Self::Middle => f.write_str("it is in the middle of an allocation"),
            Self::Size(granules) => {
                write!(f, "{} bytes are allocated there", granules * GRANULE)
            }
        }
    }
}

/// A chunk's granules.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    used: Bits<WORDS>,
    begins: Bits<WORDS>,
    /// How many are free.
    free: usize,
    /// None below this is free.
    hint: usize,
    /// No run of free ones is longer.
    room: usize,
}

impl Chunk {
    /// A chunk of which everything is free.
    pub(super) const fn new() -> Self {
        Self {
            used: Bits::new(),
            begins: Bits::new(),
            free: GRANULES,
            hint: 0,
            room: GRANULES,
        }
    }

    /// A chunk of which nothing will ever be free.
    pub(super) const fn none() -> Self {
        Self {
            free: 0,
            hint: GRANULES,
            room: 0,
            ..Self::new()
        }
    }

    /// Takes the first `count` granules of an unused chunk out of use for ever: they are
    /// used, and nothing that could be freed begins there.
    pub(super) fn reserve(&mut self, count: usize) {
        debug_assert!(self.free == GRANULES);
        self.used.fill(0, count, true);
        self.free -= count;
        self.hint = count;
        self.room = self.free;
    }

    /// How many granules are free.
    pub(super) fn free_granules(&self) -> usize {
        self.free
    }

    /// No more than this are free in a row.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Allocates `count` granules that begin at a multiple of `step`: the first that fit.
    pub(super) fn alloc(&mut self, count: usize, step: usize) -> Option<usize> {
        if count > self.room {
            return None;
        }
        let mut longest = 0;
        let mut at = self.used.next_clear(self.hint);
        self.hint = at;
        while at < GRANULES {
            let end = self.used.next_set(at);
            let start = at.next_multiple_of(step);
            if start + count <= end {
                self.take(start, count);
                return Some(start);
            }
            longest = longest.max(end - at);
            at = self.used.next_clear(end);
        }
        // All runs were seen.
        self.room = longest;
        None
    }

    fn take(&mut self, start: usize, count: usize) {
        self.used.fill(start, start + count, true);
        self.begins.set(start, true);
        self.free -= count;
        self.room = self.room.min(self.free);
        if start == self.hint {
            self.hint += count;
        }
    }

    /// Frees the `count` granules that were allocated from `start` on.
    pub(super) fn free(&mut self, start: usize, count: usize) -> Result<(), Wrong> {
        if !self.used.get(start) {
            return Err(Wrong::Free);
        }
        if !self.begins.get(start) {
            return Err(Wrong::Middle);
        }
        let end = self.end_of(start);
        if end - start != count {
            return Err(Wrong::Size(end - start));
        }
        self.begins.set(start, false);
        self.used.fill(start, end, false);
        self.free += count;
        self.hint = self.hint.min(start);
        // It may have joined two runs.
        self.room = (2 * self.room + count).min(self.free);
        Ok(())
    }

    /// Where the allocation that begins at `start` ends.
    fn end_of(&self, start: usize) -> usize {
        self.begins
            .next_set(start + 1)
            .min(self.used.next_clear(start))
    }

    /// How many allocations there are, if bits and numbers agree. `reserved` granules at the
    /// beginning belong to none.
    pub(super) fn audit(&self, reserved: usize) -> Result<usize, &'static str> {
        if self.free != GRANULES - self.used.count() {
            return Err("free granules are miscounted");
        }
        if self.used.next_clear(0) < self.hint {
            return Err("a granule below the hint is free");
        }
        let mut allocations = 0;
        let mut at = reserved;
        if self.begins.next_set(0) < reserved || self.used.next_clear(0) < reserved {
            return Err("what is reserved is not");
        }
        while at < GRANULES {
            if self.used.get(at) {
                if !self.begins.get(at) {
                    return Err("a used granule belongs to no allocation");
                }
                allocations += 1;
                at = self.end_of(at);
            } else {
                let end = self.used.next_set(at);
                if self.begins.next_set(at) < end {
                    return Err("an allocation begins at a free granule");
                }
                if end - at > self.room {
                    return Err("there is more room than is known");
                }
                at = end;
            }
        }
        if allocations != self.begins.count() {
            return Err("beginnings are miscounted");
        }
        Ok(allocations)
    }
}
