//! The page allocator as a whole: [`Mm`], how it is made, and what it has.

use core::fmt;

use arrayvec::ArrayVec;
use platform::{CpuMask, MAX_NODES, NodeId, NodeMask, percpu::PerCpu};

use crate::{
    debug::Debug,
    frame::{FrameMap, ORDERS, Pfn, State, USES, Use, Word, ZoneIndex},
    lists::{ListCounts, ListSizes, PageLists},
    machine::Machine,
    oom::RateLimit,
    reclaim::Shrinkers,
    zone::{Watermarks, Zone, ZoneKind},
};

/// Zones that a machine may have.
pub const ZONES: usize = MAX_NODES * 2;

/// A piece of memory of one node, for [`Mm::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its first frame.
    pub start: Pfn,
    /// The frame behind its last.
    pub end: Pfn,
    /// The node that it is on.
    pub node: NodeId,
    /// What is in it.
    pub kind: BlockKind,
}

/// What is in a [`Block`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Nothing: it is the allocator's.
    Free,
    /// What boot has put there; [`Mm::free_boot`] frees it.
    Boot,
    /// What is not the kernel's.
    Reserved,
}

/// What can be chosen about an allocator.
#[derive(Debug)]
pub struct Config<M: Machine> {
    /// Frames that are kept for those who cannot wait, all zones together. `None`: by
    /// Linux's formula, 4 times the square root of memory in KiB.
    pub min_free: Option<u64>,
    /// What checks are on.
    pub debug: Debug<M>,
}

/// The page allocator of a machine. See the crate's documentation.
pub struct Mm<M: Machine> {
    pub(crate) map: FrameMap<M::Layout>,
    pub(crate) lists: PerCpu<PageLists<M>, M>,
    pub(crate) debug: Debug<M>,
    pub(crate) zones: [Option<Zone<M>>; ZONES],
    /// For each node the zones to look in, in this order.
    fallback: [ArrayVec<ZoneIndex, ZONES>; MAX_NODES],
    pub(crate) shrinkers: Shrinkers<M>,
    pub(crate) failures: RateLimit,
}

/// Frames of a zone, or of several. Exact if nobody allocates or frees meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In free blocks.
    pub free: u64,
    /// Free blocks by order.
    pub blocks: [u32; ORDERS],
    /// Free in CPUs' page lists.
    pub listed: u64,
    /// Allocated, by use.
    pub used: [u64; USES],
    /// Found damaged and kept out of use.
    pub bad: u64,
    /// The allocator's: what the others add up to.
    pub managed: u64,
    /// Of memory at all.
    pub present: u64,
}

impl Counts {
    /// Frames that are allocated.
    pub fn used_frames(&self) -> u64 {
        self.used.iter().sum()
    }

    /// Frames that are free, wherever.
    pub fn free_frames(&self) -> u64 {
        self.free + self.listed
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.free += other.free;
        self.listed += other.listed;
        self.bad += other.bad;
        self.managed += other.managed;
        self.present += other.present;
        let blocks = self.blocks.iter_mut().zip(other.blocks);
        blocks.for_each(|(sum, count)| *sum += count);
        let used = self.used.iter_mut().zip(other.used);
        used.for_each(|(sum, frames)| *sum = sum.wrapping_add(frames));
    }
}

/// All nodes by distance from `node`, itself first; among equals the one that follows in the
/// ring of numbers, so that several full nodes do not all turn to the same.
fn nearest<M: Machine>(node: NodeId) -> ArrayVec<NodeId, MAX_NODES> {
    let count = MAX_NODES;
    let mut order: ArrayVec<NodeId, MAX_NODES> = (0..count)
        .filter_map(|step| NodeId::from_index((node.index() + step) % count))
        .filter(|other| M::nodes().contains(*other))
        .collect();
    let from = order.iter().position(|other| *other == node);
    if let Some(others) = from.and_then(|at| order.get_mut(at + 1..)) {
        // Insertion sort keeps the ring's order among equals; there are 8 at most.
        for index in 1..others.len() {
            let mut at = index;
            while at > 0 && M::distance(node, others[at]) < M::distance(node, others[at - 1]) {
                others.swap(at, at - 1);
                at -= 1;
            }
        }
    }
    order
}

/// The share of a node's higher memory that allocations which could have had that leave in
/// its DMA32 zone (Linux: `lowmem_reserve_ratio`).
const PROTECTION_RATIO: u64 = 256;

impl<M: Machine> Mm<M> {
    /// Makes the allocator of a machine whose memory is `blocks`, in any order. `None`: there
    /// is no per-CPU memory for its lists. Before the machine's other CPUs run.
    ///
    /// # Safety
    ///
    /// The blocks do not overlap, end at the end of `map` at the latest, and each frame has a
    /// descriptor of its own, all zeros; free blocks are mapped in the direct map and nobody
    /// uses them. All of this, and the map, lasts as long as the allocator.
    pub unsafe fn new(
        map: FrameMap<M::Layout>,
        config: Config<M>,
        blocks: impl Iterator<Item = Block> + Clone,
    ) -> Option<Self> {
        let mut zones: [Option<Zone<M>>; ZONES] = core::array::from_fn(|_| None);
        for (index, zone) in zones.iter_mut().enumerate() {
            *zone = make_zone(ZoneIndex(index as u8), blocks.clone());
        }
        let mut mm = Self {
            map,
            lists: PerCpu::try_new(|_| {
                PageLists::new(ZoneIndex(0), ListSizes::new(0, CpuMask::ALL.count()))
            })?,
            debug: config.debug,
            zones,
            fallback: core::array::from_fn(|_| ArrayVec::new()),
            shrinkers: Shrinkers::new(),
            failures: RateLimit::new(),
        };
        for block in blocks {
            for (index, start, end) in by_zone(block) {
                // SAFETY: passed on.
                unsafe { mm.add_block(index, start, end, block.kind) };
            }
        }
        mm.set_watermarks(config.min_free);
        for node in (0..MAX_NODES).filter_map(NodeId::from_index) {
            mm.fallback[node.index()] = mm.fallback_of(node);
        }
        mm.make_lists();
        Some(mm)
    }

    /// Gives the frames of a block their states, and the free ones to their zone.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new); the frames are of zone `index`.
    unsafe fn add_block(&self, index: ZoneIndex, start: Pfn, end: Pfn, kind: BlockKind) {
        let state = match kind {
            BlockKind::Free => State::Tail,
            BlockKind::Boot => State::Boot,
            BlockKind::Reserved => State::Reserved,
        };
        let word = Word::new(state, 0, index);
        for number in start.0..end.0 {
            // SAFETY: as the caller promises.
            unsafe { self.map.at(Pfn(number)) }.set_word(word);
        }
        if kind == BlockKind::Free {
            self.give_frames(index, start, end);
        }
    }

    /// Gives free frames to their zone, in the largest blocks that fit.
    fn give_frames(&self, index: ZoneIndex, start: Pfn, end: Pfn) {
        let Some(zone) = self.zone(index) else { return };
        let mut at = start.0;
        while at < end.0 {
            let order = at
                .trailing_zeros()
                .min((end.0 - at).ilog2())
                .min(crate::frame::MAX_ORDER as u32);
            // The lock is given back each time: what is freed after boot may be much.
            zone.lock(&self.map).take_in(Pfn(at), order as usize);
            at += 1 << order;
        }
        zone.add_managed(u64::from(end.0 - start.0));
    }

    /// Gives memory that boot has used to the allocator. Not in NMI.
    ///
    /// # Panics
    ///
    /// If a frame of it is not [`State::Boot`].
    ///
    /// # Safety
    ///
    /// Nobody uses it any more, and it is mapped in the direct map.
    pub unsafe fn free_boot(&self, start: Pfn, end: Pfn) {
        for number in start.0..end.0 {
            let pfn = Pfn(number);
            let frame = self.map.get(pfn);
            let word = frame.map(crate::Frame::word);
            let Some((frame, word)) = frame.zip(word).filter(|(_, w)| w.state() == State::Boot)
            else {
                panic!("frame {pfn} is not boot memory: {word:?}");
            };
            frame.set_word(word.with(State::Tail, 0));
            self.give_frames(word.zone(), pfn, pfn.add(1));
        }
    }

    fn set_watermarks(&mut self, min_free: Option<u64>) {
        let all: u64 = self.zones().map(Zone::managed).sum();
        let min_free = min_free.unwrap_or_else(|| {
            // KiB to KiB, and then to frames; Linux's bounds.
            (all * 4 * 16).isqrt().clamp(128, 262_144) / 4
        });
        for index in 0..ZONES {
            let above = match ZoneIndex(index as u8).kind() {
                ZoneKind::Dma32 => self.zones[index + 1].as_ref().map_or(0, Zone::managed),
                ZoneKind::Normal => 0,
            };
            if let Some(zone) = &mut self.zones[index] {
                zone.marks = Watermarks::new(zone.managed(), all, min_free);
                zone.protection = above / PROTECTION_RATIO;
            }
        }
    }

    fn fallback_of(&self, node: NodeId) -> ArrayVec<ZoneIndex, ZONES> {
        let zones = nearest::<M>(node).into_iter().flat_map(|node| {
            [ZoneKind::Normal, ZoneKind::Dma32].map(|kind| ZoneIndex::new(node, kind))
        });
        zones
            .filter(|index| self.zone(*index).is_some_and(|zone| zone.managed() > 0))
            .collect()
    }

    /// Gives every CPU's lists their home and sizes.
    fn make_lists(&mut self) {
        let home = |fallback: &[ArrayVec<ZoneIndex, ZONES>; MAX_NODES], node: NodeId| {
            fallback[node.index()].first().copied()
        };
        let cpus = M::possible_cpus();
        for (cpu, lists) in self.lists.iter_mut() {
            let Some(index) = home(&self.fallback, M::node_of(cpu)) else {
                continue;
            };
            let sharing = cpus
                .iter()
                .filter(|cpu| home(&self.fallback, M::node_of(*cpu)) == Some(index))
                .count();
            let zone = self.zones[index.index()].as_ref();
            let frames = zone.map_or(0, Zone::managed);
            *lists = PageLists::new(index, ListSizes::new(frames, sharing));
        }
    }

    /// Descriptors and addresses.
    #[inline(always)]
    pub fn frames(&self) -> &FrameMap<M::Layout> {
        &self.map
    }

    /// The machine's layout.
    #[inline(always)]
    pub fn layout(&self) -> M::Layout {
        self.map.layout()
    }

    /// The checks, and their knobs.
    pub fn debug(&self) -> &Debug<M> {
        &self.debug
    }

    /// A zone, if the machine has it.
    #[inline]
    pub fn zone(&self, index: ZoneIndex) -> Option<&Zone<M>> {
        self.zones.get(index.index())?.as_ref()
    }

    /// All zones that there are, by node.
    pub fn zones(&self) -> impl Iterator<Item = &Zone<M>> {
        self.zones.iter().flatten()
    }

    /// Nodes that have memory.
    pub fn nodes(&self) -> NodeMask {
        self.zones()
            .fold(NodeMask::EMPTY, |nodes, zone| nodes.with(zone.node()))
    }

    /// The zones that an allocation near `node` looks in, in this order.
    pub fn fallback(&self, node: NodeId) -> &[ZoneIndex] {
        &self.fallback[node.index()]
    }

    /// The node whose memory is nearest to `node`'s CPUs: itself, if it has memory.
    pub fn nearest_memory(&self, node: NodeId) -> Option<NodeId> {
        self.fallback(node).first().map(|zone| zone.node())
    }

    /// What is in the page lists of the possible CPUs; a glance. Any context.
    pub fn page_lists(&self) -> impl Iterator<Item = (platform::CpuId, ListCounts)> {
        self.lists.iter().map(|(cpu, lists)| (cpu, lists.counts()))
    }

    /// What a zone has. Not in NMI.
    pub fn zone_counts(&self, zone: &Zone<M>) -> Counts {
        let here = zone.counts(&self.map);
        let mut counts = Counts {
            free: here.free,
            blocks: here.blocks,
            listed: 0,
            used: here.taken,
            bad: zone.bad(),
            managed: zone.managed(),
            present: zone.present(),
        };
        for (_, lists) in self.lists.iter() {
            if lists.home() == zone.index() {
                counts.listed += lists.counts().frames();
                for usage in Use::ALL {
                    let used = &mut counts.used[usage as usize];
                    *used = used.wrapping_add(lists.used(usage));
                }
            }
            // Strays are free, but are counted where they come from when they come home.
            lists.for_each_stray(|pfn| {
                let Some(frame) = self.map.get(pfn) else {
                    return;
                };
                let word = frame.word();
                if word.zone() == zone.index() && word.state() == State::Listed {
                    let frames = 1 << word.order();
                    counts.listed += frames;
                    let used = &mut counts.used[frame.noted_use() as usize];
                    *used = used.wrapping_sub(frames);
                }
            });
        }
        counts
    }

    /// What a node has. Not in NMI.
    pub fn node_counts(&self, node: NodeId) -> Counts {
        self.sum(self.zones().filter(|zone| zone.node() == node))
    }

    /// What the machine has. Not in NMI.
    pub fn counts(&self) -> Counts {
        self.sum(self.zones())
    }

    fn sum<'a>(&self, zones: impl Iterator<Item = &'a Zone<M>>) -> Counts
    where
        M: 'a,
    {
        let mut sum = Counts::default();
        for zone in zones {
            sum.add(&self.zone_counts(zone));
        }
        sum
    }
}

/// The zone `index` of `blocks`; `None`: there is nothing in it.
fn make_zone<M: Machine>(index: ZoneIndex, blocks: impl Iterator<Item = Block>) -> Option<Zone<M>> {
    let parts = blocks.flat_map(by_zone).filter(|part| part.0 == index);
    let span = parts.fold(None, |span: Option<(Pfn, Pfn, u64)>, (_, start, end)| {
        let frames = u64::from(end.0 - start.0);
        Some(match span {
            None => (start, end, frames),
            Some((first, last, present)) => (first.min(start), last.max(end), present + frames),
        })
    });
    span.map(|(start, end, present)| Zone::new(index, start, end, present))
}

/// A block cut at the line between the zones.
fn by_zone(block: Block) -> impl Iterator<Item = (ZoneIndex, Pfn, Pfn)> {
    let line = ZoneKind::LINE;
    let low = (block.start, block.end.min(line), ZoneKind::Dma32);
    let high = (block.start.max(line), block.end, ZoneKind::Normal);
    [low, high]
        .into_iter()
        .filter(|(start, end, _)| start < end)
        .map(move |(start, end, kind)| (ZoneIndex::new(block.node, kind), start, end))
}

impl<M: Machine> fmt::Debug for Mm<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.zones()).finish()
    }
}
