//! The table that a walk works with.

use super::At;
use crate::slab::word::MAX_OBJECTS;

/// Entries: more than a slab has objects, so that with one slab as the window a full table has
/// something twice.
const ENTRIES: usize = MAX_OBJECTS + 1;
/// Bits of a word of marks.
const BITS: usize = 64;
/// Bits of an entry that say where.
const AT_BITS: u32 = 16;

/// Room for a [walk](super): a table of objects that are in sheaves, barns, deferred or in quarantine, and a
/// mark for each object of one slab.
pub struct Room {
    /// Address in units of 8 bytes, and [`At`].
    entries: [u64; ENTRIES],
    len: usize,
    marks: [u64; ENTRIES / BITS],
}

/// An object, and where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub address: usize,
    pub at: At,
}

impl Room {
    /// Room.
    pub const fn new() -> Self {
        Self {
            entries: [0; ENTRIES],
            len: 0,
            marks: [0; ENTRIES / BITS],
        }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == ENTRIES
    }

    /// Adds an entry; nothing, if there is no room. `address` counts from the beginning of the
    /// direct map.
    pub(super) fn add(&mut self, address: usize, at: At) {
        if let Some(entry) = self.entries.get_mut(self.len) {
            *entry = (address as u64 >> 3) << AT_BITS | u64::from(at.to_bits());
            self.len += 1;
        }
    }

    fn entry(bits: u64) -> Entry {
        Entry {
            address: (bits >> AT_BITS << 3) as usize,
            at: At::from_bits(bits as u16),
        }
    }

    /// Sorts the entries by address; two of the same address, if there are such.
    pub(super) fn sort(&mut self) -> Option<(Entry, Entry)> {
        let entries = &mut self.entries[..self.len];
        entries.sort_unstable();
        let mut pairs = entries
            .windows(2)
            .map(|pair| (Self::entry(pair[0]), Self::entry(pair[1])));
        pairs.find(|(first, second)| first.address == second.address)
    }

    /// The numbers of the entries from an address on, up to another.
    pub(super) fn between(&self, from: usize, to: usize) -> core::ops::Range<usize> {
        let at = |address: usize| (address as u64 >> 3) << AT_BITS;
        let entries = &self.entries[..self.len];
        let first = |address| entries.partition_point(|entry| *entry < at(address));
        first(from)..first(to)
    }

    /// An entry.
    pub(super) fn get(&self, number: usize) -> Entry {
        Self::entry(self.entries[number])
    }

    /// Takes all marks away.
    pub(super) fn clear_marks(&mut self, objects: usize) {
        self.marks[..objects.div_ceil(BITS)].fill(0);
    }

    /// Marks an object by its index; whether it was not marked.
    pub(super) fn mark(&mut self, index: usize) -> bool {
        let bit = 1 << (index % BITS);
        let word = &mut self.marks[index / BITS];
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
    }
}
