//! The table of chunks: what the lock of [`PerCpuMemory`](super::PerCpuMemory) protects.

use core::{alloc::Layout, fmt, ops::Range, ptr::NonNull};

use super::{
    GRANULE, GRANULES, Inconsistent, KEPT, MAX_ALIGN, PAGE, Stats, UNIT,
    chunk::{Chunk, Wrong},
};

/// A size and an alignment, in granules.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// How many.
    pub(super) count: usize,
    /// A multiple of this is where they begin.
    step: usize,
}

impl Wanted {
    pub(super) fn of(layout: Layout) -> Option<Self> {
        (layout.size() <= UNIT && layout.align() <= MAX_ALIGN).then_some(Self {
            count: granules(layout),
            step: layout.align().div_ceil(GRANULE),
        })
    }

    /// The offsets of what was found at `place`.
    pub(super) fn at(self, place: (usize, usize)) -> Range<usize> {
        let start = place.0 * UNIT + place.1 * GRANULE;
        start..start + self.count * GRANULE
    }
}

pub(super) fn granules(layout: Layout) -> usize {
    layout.size().div_ceil(GRANULE).max(1)
}

/// What a chunk's place in the table says.
///
/// # Invariants
///
/// In a slot of the table, `chunk` is a page from [`Backing::alloc_meta`](super::Backing::alloc_meta) that holds a
/// [`Chunk`], reached only under the lock.
#[derive(Clone, Copy)]
struct Slot {
    chunk: Option<NonNull<Chunk>>,
    /// No more granules than this are free in a row; 0 if there is no chunk.
    room: u16,
}

impl Slot {
    const ABSENT: Self = Self {
        chunk: None,
        room: 0,
    };
}

/// What the lock protects.
pub(super) struct Table<const CHUNKS: usize> {
    first: Chunk,
    /// By number; the first one's is not used but for its room.
    slots: [Slot; CHUNKS],
    /// No chunk from this number on is live.
    end: usize,
    /// Live chunks, the first included.
    live: usize,
    /// Live chunks, the first one excluded, of which nothing is used.
    pub(super) empty: usize,
    /// Granules in use, the reserved ones excluded.
    used: usize,
    /// Granules of the first chunk that are not ours.
    reserved: usize,
    allocations: usize,
}

// SAFETY: a chunk is reached through its table only, by whoever has the lock.
unsafe impl<const CHUNKS: usize> Send for Table<CHUNKS> {}

/// Why a free was refused.
pub(super) enum Refused {
    /// There is no chunk there.
    Outside,
    /// Not a place where anything could begin.
    Unaligned,
    /// What the chunk says.
    Chunk(Wrong),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside => f.write_str("there is no per-CPU memory"),
            Self::Unaligned => f.write_str("no allocation can begin there"),
            Self::Chunk(wrong) => wrong.fmt(f),
        }
    }
}

impl<const CHUNKS: usize> Table<CHUNKS> {
    /// Without chunks.
    pub(super) const fn new() -> Self {
        Self {
            first: Chunk::none(),
            slots: [Slot::ABSENT; CHUNKS],
            end: 1,
            live: 0,
            empty: 0,
            used: 0,
            reserved: 0,
            allocations: 0,
        }
    }

    /// Makes the first chunk, less `reserved` granules. `false`: there is one.
    pub(super) fn start(&mut self, reserved: usize) -> bool {
        if self.live != 0 {
            return false;
        }
        self.first = Chunk::new();
        self.first.reserve(reserved);
        self.reserved = reserved;
        self.live = 1;
        self.note_room(0);
        true
    }

    /// The chunk with this number, if it is live.
    fn chunk(&self, number: usize) -> Option<&Chunk> {
        if number == 0 {
            return (self.live > 0).then_some(&self.first);
        }
        let chunk = self.slots.get(number)?.chunk?;
        // SAFETY: by the invariant of slots; borrowed as long as the table.
        Some(unsafe { chunk.as_ref() })
    }

    fn chunk_mut(&mut self, number: usize) -> Option<&mut Chunk> {
        if number == 0 {
            return (self.live > 0).then_some(&mut self.first);
        }
        let mut chunk = self.slots.get(number)?.chunk?;
        // SAFETY: as above, exclusively.
        Some(unsafe { chunk.as_mut() })
    }

    /// Writes a chunk's room to its slot, where it is found without a look at the chunk.
    fn note_room(&mut self, number: usize) {
        self.slots[number].room = self.chunk(number).map_or(0, |chunk| chunk.room() as u16);
    }

    /// The chunk's number and the granule in it. The lowest chunk that will do, so that high
    /// ones become empty.
    pub(super) fn alloc(&mut self, wanted: Wanted) -> Option<(usize, usize)> {
        for number in 0..self.end {
            if usize::from(self.slots[number].room) < wanted.count {
                continue;
            }
            let Some(chunk) = self.chunk_mut(number) else {
                continue;
            };
            let was_empty = chunk.free_granules() == GRANULES;
            let start = chunk.alloc(wanted.count, wanted.step);
            self.note_room(number);
            if let Some(start) = start {
                self.used += wanted.count;
                self.allocations += 1;
                if was_empty && number != 0 {
                    self.empty -= 1;
                }
                return Some((number, start));
            }
        }
        None
    }

    /// Whether there are more empty chunks now than are kept.
    pub(super) fn free(&mut self, offset: usize, count: usize) -> Result<bool, Refused> {
        if !offset.is_multiple_of(GRANULE) {
            return Err(Refused::Unaligned);
        }
        let number = offset / UNIT;
        let chunk = self.chunk_mut(number).ok_or(Refused::Outside)?;
        chunk
            .free(offset % UNIT / GRANULE, count)
            .map_err(Refused::Chunk)?;
        let is_empty = chunk.free_granules() == GRANULES;
        self.note_room(number);
        self.used -= count;
        self.allocations -= 1;
        if is_empty && number != 0 {
            self.empty += 1;
        }
        Ok(self.empty > KEPT)
    }

    /// The lowest number without a chunk. Before the start none may be made.
    pub(super) fn absent(&self) -> Option<usize> {
        (1..CHUNKS).find(|&number| self.live > 0 && self.slots[number].chunk.is_none())
    }

    pub(super) fn insert(&mut self, number: usize, chunk: NonNull<Chunk>) {
        self.slots[number].chunk = Some(chunk);
        self.note_room(number);
        self.end = self.end.max(number + 1);
        self.live += 1;
        self.empty += 1;
    }

    /// Takes the highest empty chunk out, if there are more than `keep`.
    pub(super) fn take_empty(&mut self, keep: usize) -> Option<(usize, NonNull<Chunk>)> {
        if self.empty <= keep {
            return None;
        }
        let is_empty = |chunk: &Chunk| chunk.free_granules() == GRANULES;
        let number = (1..self.end)
            .rev()
            .find(|&number| self.chunk(number).is_some_and(is_empty))?;
        let chunk = core::mem::replace(&mut self.slots[number], Slot::ABSENT).chunk?;
        self.live -= 1;
        self.empty -= 1;
        while self.end > 1 && self.slots[self.end - 1].chunk.is_none() {
            self.end -= 1;
        }
        Some((number, chunk))
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            used: self.used * GRANULE,
            populated: self.live * UNIT - self.reserved * GRANULE,
            pages: self.live.saturating_sub(1) * (UNIT / PAGE),
            chunks: self.live,
            empty: self.empty,
            allocations: self.allocations,
        }
    }

    pub(super) fn audit(&self) -> Result<Stats, Inconsistent> {
        let (mut free, mut live, mut empty, mut allocations) = (0, 0, 0, 0);
        for number in 0..CHUNKS {
            let fault = |what| Inconsistent {
                chunk: Some(number),
                what,
            };
            let room = usize::from(self.slots[number].room);
            let Some(chunk) = self.chunk(number) else {
                if room != 0 {
                    return Err(fault("there is room in an absent chunk"));
                }
                continue;
            };
            let reserved = if number == 0 { self.reserved } else { 0 };
            allocations += chunk.audit(reserved).map_err(fault)?;
            if room != chunk.room() {
                return Err(fault("its room is not known"));
            }
            if number >= self.end {
                return Err(fault("it is beyond the end"));
            }
            live += 1;
            free += chunk.free_granules();
            empty += usize::from(number != 0 && chunk.free_granules() == GRANULES);
        }
        let fault = |what| Err(Inconsistent { chunk: None, what });
        if live != self.live || empty != self.empty {
            return fault("chunks are miscounted");
        }
        if allocations != self.allocations {
            return fault("allocations are miscounted");
        }
        if live * GRANULES - free != self.used + self.reserved {
            return fault("used granules are miscounted");
        }
        Ok(self.stats())
    }
}
