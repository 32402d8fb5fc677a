//! The CPUs' page lists: small blocks at hand, so that most allocations and frees touch no
//! lock that another CPU wants.
//!
//! Every CPU has a stack of blocks for each order up to [`MAX_LIST_ORDER`], of frames of its
//! *home* zone: the first zone in its node's order that has memory. An allocation pops, a
//! free pushes. An empty stack is refilled with a batch, a full one gives half of it back,
//! the blocks that it has had longest. Blocks of other zones that are freed here gather in a
//! small buffer (*strays*) and go home together.
//!
//! The stacks are arrays of frame numbers and not lists through the descriptors: what is
//! popped is one load away, and a batch moves without touching the blocks' memory.
//!
//! # Protocol
//!
//! All is under a [`LocalLock`]: used by its own CPU alone, with preemption off. An interrupt
//! or NMI that comes in between finds it taken and goes to the zone instead. Under it the
//! zone's lock may be taken. The words are atomics, so that other CPUs may look (`len`,
//! `used`); they are written by the lock's holder alone, Relaxed, with plain stores.
//!
//! | from | to | who |
//! |---|---|---|
//! | free (zone) | listed | refill: local lock, then the zone's |
//! | listed | used | pop: local lock |
//! | used | listed | push: local lock |
//! | used | listed, use noted | a stray: local lock; counted when it goes home |
//! | listed | free (zone) | drain: local lock, then the zone's; of a CPU that is gone: who took it down |

use platform::{
    lock::LocalLock,
    lock_class,
    sync::{AtomicU32, AtomicU64, Ordering},
};

use crate::{
    frame::{FrameMap, Pfn, State, USES, Use, Word, ZoneIndex},
    machine::Machine,
    zone::Zone,
};

lock_class! {
    /// A CPU's page lists.
    pub struct ListsLock = ("page lists", 84);
}

/// The lists have blocks up to this order.
pub const MAX_LIST_ORDER: usize = 3;
/// How many lists a CPU has.
pub const LISTS: usize = MAX_LIST_ORDER + 1;
/// The most blocks in a list, by order.
const CAPACITY: [usize; LISTS] = [512, 128, 64, 32];
/// Where each list's slots begin.
const BASE: [usize; LISTS] = [0, 512, 640, 704];
const SLOTS: usize = 736;
/// The most blocks that move at a time under one hold of the zone's lock, by order.
const BATCH: [u32; LISTS] = [64, 32, 16, 8];
/// The most strays.
const STRAYS: usize = 32;

/// How many blocks a CPU keeps of each order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListSizes {
    /// Beyond this, half is given back.
    pub high: [u32; LISTS],
    /// What a refill takes.
    pub batch: [u32; LISTS],
}

impl ListSizes {
    /// Sizes for CPUs that share `frames` frames with `cpus - 1` others: all lists of one
    /// order together hold at most an eighth of the zone, as Linux has it.
    pub(crate) fn new(frames: u64, cpus: usize) -> Self {
        let share = frames / 8 / cpus.max(1) as u64;
        let high = core::array::from_fn(|order| {
            (share >> (2 * order)).clamp(2, CAPACITY[order] as u64) as u32
        });
        let batch = core::array::from_fn(|order: usize| (high[order] / 2).clamp(1, BATCH[order]));
        Self { high, batch }
    }
}

/// A CPU's lists. See the module.
#[repr(C)]
pub(crate) struct PageLists<M: Machine> {
    pub(crate) lock: LocalLock<(), M, ListsLock>,
    /// The home zone, as bits of a descriptor's word.
    home: Word,
    len: [AtomicU32; LISTS],
    sizes: ListSizes,
    /// Frames by use that were handed out here, less those that came back here. Wraps.
    used: [AtomicU64; USES],
    strays: AtomicU32,
    refills: AtomicU64,
    drains: AtomicU64,
    slots: [AtomicU32; SLOTS],
    stray_slots: [AtomicU32; STRAYS],
}

/// What a CPU's lists have, for those who show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListCounts {
    /// The zone whose blocks they are.
    pub home: ZoneIndex,
    /// Blocks by order.
    pub len: [u32; LISTS],
    /// Bounds and batches.
    pub sizes: ListSizes,
    /// Times that a list was refilled.
    pub refills: u64,
    /// Times that a list gave blocks back.
    pub drains: u64,
}

impl ListCounts {
    /// Frames in all lists.
    pub fn frames(&self) -> u64 {
        let sizes = self.len.iter().enumerate();
        sizes.map(|(order, &len)| u64::from(len) << order).sum()
    }
}

/// Adds to a word that only the holder of the local lock changes.
#[inline(always)]
fn bump(word: &AtomicU64, by: u64) {
    word.store(
        word.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

impl<M: Machine> PageLists<M> {
    pub(crate) fn new(home: ZoneIndex, sizes: ListSizes) -> Self {
        Self {
            lock: LocalLock::new(()),
            home: Word::new(State::Hole, 0, home),
            len: core::array::from_fn(|_| AtomicU32::new(0)),
            sizes,
            used: core::array::from_fn(|_| AtomicU64::new(0)),
            strays: AtomicU32::new(0),
            refills: AtomicU64::new(0),
            drains: AtomicU64::new(0),
            slots: core::array::from_fn(|_| AtomicU32::new(0)),
            stray_slots: core::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// The home zone.
    #[inline(always)]
    pub(crate) fn home(&self) -> ZoneIndex {
        self.home.zone()
    }

    /// The word that a home block has in this state.
    #[inline(always)]
    pub(crate) fn word(&self, state: State, order: usize) -> Word {
        self.home.with(state, order)
    }

    /// Takes the latest block. The local lock is held.
    #[inline(always)]
    pub(crate) fn pop(&self, order: usize) -> Option<Pfn> {
        let len = self.len[order].load(Ordering::Relaxed);
        if len == 0 {
            return None;
        }
        self.len[order].store(len - 1, Ordering::Relaxed);
        Some(Pfn(self.slot(order, len - 1).load(Ordering::Relaxed)))
    }

    /// Whether a list has as many blocks as it may.
    #[inline(always)]
    pub(crate) fn is_full(&self, order: usize) -> bool {
        self.len[order].load(Ordering::Relaxed) >= self.sizes.high[order]
    }

    /// Puts a block on its list, which is not full. The local lock is held.
    #[inline(always)]
    pub(crate) fn push(&self, order: usize, pfn: Pfn) {
        let len = self.len[order].load(Ordering::Relaxed);
        debug_assert!(len < self.sizes.high[order]);
        self.slot(order, len).store(pfn.0, Ordering::Relaxed);
        self.len[order].store(len + 1, Ordering::Relaxed);
    }

    #[inline(always)]
    fn slot(&self, order: usize, index: u32) -> &AtomicU32 {
        debug_assert!(order < LISTS && (index as usize) < CAPACITY[order]);
        // SAFETY: `len` is at most `high`, which is at most the capacity (`ListSizes::new`),
        // and nothing else is asked for: the slots of all orders end at SLOTS.
        unsafe { self.slots.get_unchecked(BASE[order] + index as usize) }
    }

    /// Counts frames as used, or with a negative number as not used any more. The local lock
    /// is held.
    #[inline(always)]
    pub(crate) fn count(&self, usage: Use, frames: u64) {
        bump(&self.used[usage as usize], frames);
    }

    /// Takes a batch from the home zone, if its lock may be had (`wait`, or it is free) and
    /// it is not short of memory. The local lock is held, the list is empty. Whether there
    /// are blocks now.
    #[cold]
    #[inline(never)]
    pub(crate) fn refill(
        &self,
        map: &FrameMap<M::Layout>,
        zone: &Zone<M>,
        order: usize,
        wait: bool,
    ) -> bool {
        let locked = if wait {
            Some(zone.lock(map))
        } else {
            zone.try_lock(map)
        };
        let Some(mut locked) = locked else {
            return false;
        };
        let mut len = 0;
        locked.take_batch(order, self.sizes.batch[order], |pfn| {
            self.slot(order, len).store(pfn.0, Ordering::Relaxed);
            len += 1;
        });
        self.len[order].store(len, Ordering::Relaxed);
        bump(&self.refills, 1);
        len > 0
    }

    /// Gives the home zone the `count` blocks of a list that are longest in it. The local
    /// lock is held.
    #[cold]
    #[inline(never)]
    pub(crate) fn drain(
        &self,
        map: &FrameMap<M::Layout>,
        zone: &Zone<M>,
        order: usize,
        count: u32,
    ) {
        let len = self.len[order].load(Ordering::Relaxed);
        let count = count.min(len);
        let mut given = 0;
        // A batch under each hold of the lock: others want it, and interrupts are off.
        while given < count {
            let next = (given + BATCH[order]).min(count);
            let blocks =
                (given..next).map(|index| Pfn(self.slot(order, index).load(Ordering::Relaxed)));
            zone.lock(map).take_in_listed(order, blocks);
            given = next;
        }
        for index in count..len {
            let slot = self.slot(order, index).load(Ordering::Relaxed);
            self.slot(order, index - count)
                .store(slot, Ordering::Relaxed);
        }
        self.len[order].store(len - count, Ordering::Relaxed);
        bump(&self.drains, 1);
    }

    /// Makes room in a full list. The local lock is held.
    pub(crate) fn make_room(&self, map: &FrameMap<M::Layout>, zone: &Zone<M>, order: usize) {
        self.drain(map, zone, order, (self.sizes.high[order] / 2).max(1));
    }

    /// Keeps a freed block of another zone; its use is noted. `false`: there are too many.
    /// The local lock is held.
    pub(crate) fn keep_stray(&self, pfn: Pfn) -> bool {
        let count = self.strays.load(Ordering::Relaxed);
        let Some(slot) = self.stray_slots.get(count as usize) else {
            return false;
        };
        slot.store(pfn.0, Ordering::Relaxed);
        self.strays.store(count + 1, Ordering::Relaxed);
        true
    }

    /// Calls `each` with the strays. Exact with the local lock, else a glance.
    pub(crate) fn for_each_stray(&self, mut each: impl FnMut(Pfn)) {
        let count = self.strays.load(Ordering::Relaxed) as usize;
        for slot in self.stray_slots.iter().take(count) {
            each(Pfn(slot.load(Ordering::Relaxed)));
        }
    }

    /// Sends all strays home: those of one zone under one hold of its lock. The local lock
    /// is held.
    #[cold]
    #[inline(never)]
    pub(crate) fn send_strays<'z>(
        &self,
        map: &FrameMap<M::Layout>,
        zone_of: impl Fn(ZoneIndex) -> Option<&'z Zone<M>>,
    ) {
        let zone_at = |pfn: Pfn| map.get(pfn).map(|frame| frame.word().zone());
        let mut done: u32 = 0;
        // Zones have small numbers: a bit for each that was served.
        self.for_each_stray(|pfn| {
            let Some(index) = zone_at(pfn).filter(|index| done & 1 << index.0 == 0) else {
                return;
            };
            done |= 1 << index.0;
            let Some(zone) = zone_of(index) else { return };
            let mut locked = zone.lock(map);
            self.for_each_stray(|other| {
                if zone_at(other) == Some(index) {
                    locked.take_in_remote(other);
                }
            });
        });
        self.strays.store(0, Ordering::Relaxed);
    }

    /// What is in them; a glance.
    pub(crate) fn counts(&self) -> ListCounts {
        ListCounts {
            home: self.home(),
            len: core::array::from_fn(|order| self.len[order].load(Ordering::Relaxed)),
            sizes: self.sizes,
            refills: self.refills.load(Ordering::Relaxed),
            drains: self.drains.load(Ordering::Relaxed),
        }
    }

    /// Frames of a use that were handed out here, less those that came back; wraps.
    pub(crate) fn used(&self, usage: Use) -> u64 {
        self.used[usage as usize].load(Ordering::Relaxed)
    }
}
