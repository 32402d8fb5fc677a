//! Ranges of physical memory, and bounded lists of them.
//!
//! [`Region`] is one range; [`RegionMap`] gives every byte of some regions a
//! kind; [`RegionList`] is the map with just one kind: a set of bytes. Maps and
//! lists hold at most `N` regions, in an array. What would need more is refused
//! with [`Full`] and leaves the list as it was: nothing is lost in silence.

mod list;
mod map;

use core::fmt;

pub use list::RegionList;
pub use map::{Full, RegionMap};

use crate::PAGE_SIZE;

/// No physical address reaches this high on any x86-64 machine. Regions end
/// here at the latest, so adding a page to an address in one cannot overflow.
pub const PHYSICAL_LIMIT: u64 = 1 << 52;

/// A range of physical memory that is not empty.
///
/// # Invariants
/// `start < end <= PHYSICAL_LIMIT`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region {
    start: u64,
    end: u64,
}

impl Region {
    /// The bytes from `start` up to but without `end`. `None` if there are
    /// none, or some at [`PHYSICAL_LIMIT`] or above.
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        // INVARIANT: checked here, the only constructor.
        if start < end && end <= PHYSICAL_LIMIT {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// The `size` bytes from `start` on; `None` as for [`new`](Self::new).
    pub const fn with_size(start: u64, size: u64) -> Option<Self> {
        match start.checked_add(size) {
            Some(end) => Self::new(start, end),
            None => None,
        }
    }

    /// The first address.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The address behind the last.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// The number of bytes, never 0.
    pub const fn size(self) -> u64 {
        self.end - self.start
    }

    /// The number of page frames, if start and end are those of pages.
    pub const fn pages(self) -> u64 {
        self.size() / PAGE_SIZE
    }

    /// Whether `address` is in the region.
    pub const fn contains(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// Whether the regions have bytes in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The bytes in both regions.
    pub const fn intersection(self, other: Self) -> Option<Self> {
        let start = if self.start > other.start {
            self.start
        } else {
            other.start
        };
        let end = if self.end < other.end {
            self.end
        } else {
            other.end
        };
        Self::new(start, end)
    }

    /// The part below `address`.
    pub const fn below(self, address: u64) -> Option<Self> {
        Self::new(
            self.start,
            if self.end < address {
                self.end
            } else {
                address
            },
        )
    }

    /// The part from `address` on.
    pub const fn above(self, address: u64) -> Option<Self> {
        Self::new(
            if self.start > address {
                self.start
            } else {
                address
            },
            self.end,
        )
    }

    /// The whole pages in the region.
    pub const fn page_align_inwards(self) -> Option<Self> {
        Self::new(
            self.start.next_multiple_of(PAGE_SIZE),
            self.end / PAGE_SIZE * PAGE_SIZE,
        )
    }

    /// All pages that the region has bytes of.
    pub const fn page_align_outwards(self) -> Self {
        // INVARIANT: the limit is that of a page, so the end cannot pass it.
        Self {
            start: self.start / PAGE_SIZE * PAGE_SIZE,
            end: self.end.next_multiple_of(PAGE_SIZE),
        }
    }
}

const _: () = assert!(PHYSICAL_LIMIT.is_multiple_of(PAGE_SIZE));

impl fmt::Display for Region {
    /// Writes the first and the last address: `0x1000-0x1fff`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end - 1)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
