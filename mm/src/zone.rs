//! Zones: the frames of a node below 4 GiB, and those above.
//!
//! A zone owns its free blocks under a lock with interrupts off, which any context but NMI
//! may wait for; who may not wait tries, and leaves what it frees on the zone's stack
//! ([`later`](crate::later)), which the next holder of the lock takes in first.
//!
//! | word | who writes it | who reads it |
//! |---|---|---|
//! | the free blocks | holder of the lock | the same |
//! | `free` | holder of the lock, after each change | anyone; a glance |
//! | `taken` | holder of the lock | anyone; exact when nobody allocates or frees |

use core::fmt;

use platform::{
    NodeId,
    lock::{IrqSpinGuard, IrqSpinLock},
    lock_class,
    sync::{AtomicU64, Ordering},
};

use crate::{
    buddy::{Block, FreeBlocks, mark_block},
    frame::{Frame, FrameMap, ORDERS, Pfn, State, USES, Use, ZoneIndex},
    later::Later,
    machine::Machine,
};

lock_class! {
    /// A zone's free blocks.
    pub struct ZoneLock = ("page zone", 86);
}

/// Which addresses a zone has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ZoneKind {
    /// Below 4 GiB, where devices with 32-bit addresses reach.
    Dma32,
    /// The rest.
    Normal,
}

impl ZoneKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Dma32, Self::Normal];
    /// The first frame of [`Normal`](Self::Normal).
    pub const LINE: Pfn = Pfn(1 << 20);

    /// The kind of a frame.
    pub const fn of(pfn: Pfn) -> Self {
        if pfn.0 < Self::LINE.0 {
            Self::Dma32
        } else {
            Self::Normal
        }
    }

    /// Linux's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dma32 => "DMA32",
            Self::Normal => "Normal",
        }
    }
}

impl fmt::Display for ZoneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl ZoneIndex {
    /// The zone of a kind on a node.
    pub const fn new(node: NodeId, kind: ZoneKind) -> Self {
        Self((node.index() * 2 + kind as usize) as u8)
    }

    /// As an index.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Its node.
    pub fn node(self) -> NodeId {
        NodeId::from_index(self.index() / 2).expect("a zone's number has that of a node in it")
    }

    /// Its kind.
    pub const fn kind(self) -> ZoneKind {
        ZoneKind::ALL[self.0 as usize % 2]
    }
}

/// Levels of free frames, in frames. Below *low* memory is short; what is below *min* is
/// kept for those who cannot wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// Ordinary allocations leave this much.
    pub min: u64,
    /// The first try of an allocation, and refills of page lists, leave this much.
    pub low: u64,
    /// Reclaim brings this much back.
    pub high: u64,
}

impl Watermarks {
    /// Linux's formula: *min* is the zone's share of `min_free`, and the steps above it are
    /// a quarter of that or 0.1 % of the zone, whichever is more.
    pub(crate) fn new(managed: u64, all_managed: u64, min_free: u64) -> Self {
        let min = (u128::from(min_free) * u128::from(managed) / u128::from(all_managed.max(1)))
            .min(u128::from(managed)) as u64;
        let step = (min / 4).max(managed / 1000);
        Self {
            min,
            low: min + step,
            high: min + 2 * step,
        }
    }
}

/// How deep an allocation may go into a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    Low,
    Min,
    /// For those who cannot wait: half of *min*, as Linux has it.
    Reserve,
}

/// A zone.
pub struct Zone<M: Machine> {
    index: ZoneIndex,
    start: Pfn,
    end: Pfn,
    present: u64,
    /// Frames that the allocator has had at some time: free, or allocated by it.
    managed: AtomicU64,
    /// Set once when the allocator is made.
    pub(crate) marks: Watermarks,
    /// What allocations that had a better zone to go to leave here.
    pub(crate) protection: u64,
    blocks: IrqSpinLock<FreeBlocks, M, ZoneLock>,
    free: AtomicU64,
    pub(crate) later: Later,
    /// Frames by use that were taken here and not from the CPUs' lists, less those that were
    /// given back here. Wraps: what a CPU's list handed out may come back here.
    taken: [AtomicU64; USES],
    /// Frames kept out of use, by the use that they still count for; see [`keep_out`](Self::keep_out).
    bad: [AtomicU64; USES],
    /// Frames kept out of use that counted for none.
    lost: AtomicU64,
}

/// The lock of a zone, held.
pub(crate) struct Locked<'a, M: Machine> {
    zone: &'a Zone<M>,
    map: &'a FrameMap<M::Layout>,
    blocks: IrqSpinGuard<'a, FreeBlocks, M, ZoneLock>,
}

/// What a zone has, for those who show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneCounts {
    /// Free blocks by order.
    pub blocks: [u32; ORDERS],
    /// Frames in them.
    pub free: u64,
    /// Frames by use; wraps unless taken together with those of the CPUs' lists.
    pub(crate) taken: [u64; USES],
}

impl<M: Machine> Zone<M> {
    pub(crate) fn new(index: ZoneIndex, start: Pfn, end: Pfn, present: u64) -> Self {
        Self {
            index,
            start,
            end,
            present,
            managed: AtomicU64::new(0),
            marks: Watermarks::default(),
            protection: 0,
            blocks: IrqSpinLock::new(FreeBlocks::new(index)),
            free: AtomicU64::new(0),
            later: Later::new(),
            taken: core::array::from_fn(|_| AtomicU64::new(0)),
            bad: core::array::from_fn(|_| AtomicU64::new(0)),
            lost: AtomicU64::new(0),
        }
    }

    /// Its place in the table of zones.
    pub fn index(&self) -> ZoneIndex {
        self.index
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.index.node()
    }

    /// Which addresses it has.
    pub fn kind(&self) -> ZoneKind {
        self.index.kind()
    }

    /// Its first frame.
    pub fn start(&self) -> Pfn {
        self.start
    }

    /// The frame behind its last.
    pub fn end(&self) -> Pfn {
        self.end
    }

    /// Frames from the first to the last, holes included.
    pub fn spanned(&self) -> u64 {
        u64::from(self.end.0 - self.start.0)
    }

    /// Frames of memory, reserved ones included.
    pub fn present(&self) -> u64 {
        self.present
    }

    /// Frames that the allocator has: free, or allocated by it.
    pub fn managed(&self) -> u64 {
        // Relaxed: a statistic.
        self.managed.load(Ordering::Relaxed)
    }

    pub(crate) fn add_managed(&self, frames: u64) {
        self.managed.fetch_add(frames, Ordering::Relaxed);
    }

    /// The watermarks.
    pub fn watermarks(&self) -> Watermarks {
        self.marks
    }

    /// What allocations that could have had a higher zone leave here, beside the watermark.
    pub fn protection(&self) -> u64 {
        self.protection
    }

    /// Frames in free blocks; a glance. Any context.
    pub fn free(&self) -> u64 {
        // Relaxed: a glance.
        self.free.load(Ordering::Relaxed)
    }

    /// Frames that were found damaged and are kept out of use.
    pub fn bad(&self) -> u64 {
        // Relaxed: a statistic.
        let bad = self.bad.iter().map(|frames| frames.load(Ordering::Relaxed));
        bad.sum::<u64>() + self.lost.load(Ordering::Relaxed)
    }

    /// Counts frames as kept out of use, and not for their use any more: `None` if they
    /// counted for none. Any context.
    pub(crate) fn keep_out(&self, frames: u64, usage: Option<Use>) {
        let bad = usage.map_or(&self.lost, |usage| &self.bad[usage as usize]);
        // Relaxed: a statistic, which may be added to without the lock.
        bad.fetch_add(frames, Ordering::Relaxed);
    }

    /// Takes the lock, and in what was left for its holder. Not in NMI.
    #[track_caller]
    pub(crate) fn lock<'a>(&'a self, map: &'a FrameMap<M::Layout>) -> Locked<'a, M> {
        Locked {
            zone: self,
            map,
            blocks: self.blocks.lock(),
        }
        .with_later()
    }

    /// The same if the lock is free. Any context.
    #[track_caller]
    pub(crate) fn try_lock<'a>(&'a self, map: &'a FrameMap<M::Layout>) -> Option<Locked<'a, M>> {
        let blocks = self.blocks.try_lock()?;
        let locked = Locked {
            zone: self,
            map,
            blocks,
        };
        Some(locked.with_later())
    }

    /// What is free in it. Not in NMI.
    pub(crate) fn counts(&self, map: &FrameMap<M::Layout>) -> ZoneCounts {
        let locked = self.lock(map);
        ZoneCounts {
            blocks: locked.blocks.counts(),
            free: locked.blocks.frames(),
            taken: core::array::from_fn(|usage| {
                let bad = self.bad[usage].load(Ordering::Relaxed);
                self.taken[usage].load(Ordering::Relaxed).wrapping_sub(bad)
            }),
        }
    }
}

impl<M: Machine> fmt::Debug for Zone<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zone")
            .field("node", &self.node())
            .field("kind", &self.kind())
            .field("managed", &self.managed())
            .field("free", &self.free())
            .finish_non_exhaustive()
    }
}

impl<M: Machine> Locked<'_, M> {
    fn with_later(mut self) -> Self {
        if !self.zone.later.is_empty() {
            self.take_later();
        }
        self
    }

    #[cold]
    fn take_later(&mut self) {
        let (zone, map) = (self.zone, self.map);
        zone.later.take(map, |pfn| {
            // SAFETY: what was pushed has a descriptor.
            let frame = unsafe { map.at(pfn) };
            self.count_given_back(frame);
            self.blocks.put(
                map,
                Block {
                    start: pfn,
                    order: frame.word().order(),
                },
            );
        });
        self.publish();
    }

    /// Says how much is free now.
    fn publish(&self) {
        // Relaxed: readers only glance; a plain store, as the lock has one holder.
        self.zone
            .free
            .store(self.blocks.frames(), Ordering::Relaxed);
    }

    fn count(&self, usage: Use, frames: u64) {
        let taken = &self.zone.taken[usage as usize];
        // Relaxed, and no read-modify-write: changed under the lock alone.
        let now = taken.load(Ordering::Relaxed).wrapping_add(frames);
        taken.store(now, Ordering::Relaxed);
    }

    /// Counts a block as not used any more whose use was noted when it was freed.
    fn count_given_back(&self, frame: &Frame) {
        self.count(
            frame.noted_use(),
            (1_u64 << frame.word().order()).wrapping_neg(),
        );
    }

    /// Whether `frames` can be taken and leave what they must.
    fn may_take(&self, frames: u64, depth: Depth, protected: bool) -> bool {
        let marks = &self.zone.marks;
        let mark = match depth {
            Depth::Low => marks.low,
            Depth::Min => marks.min,
            Depth::Reserve => marks.min / 2,
        };
        let reserve = if protected { self.zone.protection } else { 0 };
        self.blocks.frames() >= frames + mark + reserve
    }

    /// Takes a block for a use. `protected`: the request could have had a higher zone.
    pub(crate) fn take(
        &mut self,
        order: usize,
        usage: Use,
        depth: Depth,
        protected: bool,
    ) -> Option<Pfn> {
        if !self.may_take(1 << order, depth, protected) {
            return None;
        }
        let pfn = self.blocks.take(self.map, order)?;
        mark_block(self.map, pfn, order, State::Used(usage), self.zone.index);
        self.count(usage, 1 << order);
        self.publish();
        Some(pfn)
    }

    /// Takes up to `most` blocks for a CPU's list and calls `each` with them, as far as the
    /// *low* watermark allows. How many.
    pub(crate) fn take_batch(&mut self, order: usize, most: u32, mut each: impl FnMut(Pfn)) -> u32 {
        let mut taken = 0;
        while taken < most && self.may_take(1 << order, Depth::Low, false) {
            let spare = self.blocks.frames() - self.zone.marks.low;
            let wanted = u64::from(most - taken).min(spare >> order) as u32;
            let Some((start, count)) = self.blocks.take_run(self.map, order, wanted) else {
                break;
            };
            // The last first: lists hand out the latest first, so addresses ascend.
            for block in (0..count).rev() {
                let pfn = start.add(block << order);
                mark_block(self.map, pfn, order, State::Listed, self.zone.index);
                each(pfn);
            }
            taken += count;
        }
        self.publish();
        taken
    }

    /// Takes in a block that was used, and counts it.
    pub(crate) fn give_back(&mut self, pfn: Pfn, order: usize, usage: Use) {
        self.count(usage, (1_u64 << order).wrapping_neg());
        self.take_in(pfn, order);
    }

    /// Takes in a block that counts as free already, or as nothing.
    pub(crate) fn take_in(&mut self, pfn: Pfn, order: usize) {
        self.blocks.put(self.map, Block { start: pfn, order });
        self.publish();
    }

    /// Takes in blocks of an order that a CPU's list held.
    pub(crate) fn take_in_listed(&mut self, order: usize, blocks: impl Iterator<Item = Pfn>) {
        for start in blocks {
            self.blocks.put(self.map, Block { start, order });
        }
        self.publish();
    }

    /// Takes in a block that another node's CPU has freed and kept, and counts it.
    pub(crate) fn take_in_remote(&mut self, pfn: Pfn) {
        // SAFETY: a block of this zone has a descriptor.
        let frame = unsafe { self.map.at(pfn) };
        self.count_given_back(frame);
        let order = frame.word().order();
        self.take_in(pfn, order);
    }

    /// Calls `each` with the free blocks of an order.
    pub(crate) fn for_each_free(&self, order: usize, each: impl FnMut(Pfn)) {
        self.blocks.for_each(self.map, order, each);
    }
}
