//! The free blocks of a zone: the buddy system.
//!
//! A free block of order `n` is `2^n` frames at a multiple of `2^n`; its *buddy* is the one
//! other block that makes a block of the next order with it. Blocks of an order are in a list
//! through their heads' descriptors. A block that is freed is merged with its buddy as long
//! as that is free as a whole; one that is too large is cut, and what is left over goes back
//! to the lists. (Knuth, The Art of Computer Programming, vol. 1, 2.5.)
//!
//! All of this happens under the zone's lock, which owns every [`State::Free`] descriptor and
//! the tails behind it.
//!
//! # Invariants
//!
//! - A descriptor is [`State::Free`] exactly if its block is in the list of its order.
//! - Two buddies are never both free: they would have been merged.
//! - Every frame of a block but the head is [`State::Tail`], and in a block that is not free
//!   it names the block's order.

use platform::sync::Ordering;

use crate::{
    frame::{Frame, FrameMap, MAX_ORDER, ORDERS, Pfn, State, Word, ZoneIndex},
    machine::Layout,
};

/// No frame: the end of a list.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    count: u32,
}

/// The free blocks.
#[derive(Debug)]
pub(crate) struct FreeBlocks {
    lists: [List; ORDERS],
    /// A bit for each order that has blocks.
    present: u32,
    /// Frames in all blocks.
    frames: u64,
    zone: ZoneIndex,
}

/// A block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) start: Pfn,
    pub(crate) order: usize,
}

impl FreeBlocks {
    pub(crate) const fn new(zone: ZoneIndex) -> Self {
        Self {
            lists: [List {
                head: NONE,
                count: 0,
            }; ORDERS],
            present: 0,
            frames: 0,
            zone,
        }
    }

    /// Frames that are free.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// How many blocks of each order are free.
    pub(crate) fn counts(&self) -> [u32; ORDERS] {
        self.lists.map(|list| list.count)
    }

    fn insert<L: Layout>(&mut self, map: &FrameMap<L>, block: Block) {
        let Block { start, order } = block;
        // SAFETY: frames of the zone have descriptors.
        let frame = unsafe { map.at(start) };
        frame.set_word(Word::new(State::Free, order, self.zone));
        let list = &mut self.lists[order];
        // Relaxed, here and below: the zone's lock orders what is in its lists.
        frame.next.store(list.head, Ordering::Relaxed);
        frame.prev.store(NONE, Ordering::Relaxed);
        if list.head != NONE {
            // SAFETY: what is in a list has a descriptor.
            unsafe { map.at(Pfn(list.head)) }
                .prev
                .store(start.0, Ordering::Relaxed);
        }
        list.head = start.0;
        list.count += 1;
        self.present |= 1 << order;
        self.frames += 1 << order;
    }

    fn remove<L: Layout>(&mut self, map: &FrameMap<L>, frame: &Frame, order: usize) {
        let next = frame.next.load(Ordering::Relaxed);
        let prev = frame.prev.load(Ordering::Relaxed);
        let list = &mut self.lists[order];
        if next != NONE {
            // SAFETY: what is in a list has a descriptor.
            unsafe { map.at(Pfn(next)) }
                .prev
                .store(prev, Ordering::Relaxed);
        }
        if prev == NONE {
            list.head = next;
        } else {
            // SAFETY: as above.
            unsafe { map.at(Pfn(prev)) }
                .next
                .store(next, Ordering::Relaxed);
        }
        list.count -= 1;
        if list.count == 0 {
            self.present &= !(1 << order);
        }
        self.frames -= 1 << order;
    }

    /// Takes a block in, and merges it with its buddies. Its frames are the caller's and
    /// belong to this zone; those behind the head are tails.
    pub(crate) fn put<L: Layout>(&mut self, map: &FrameMap<L>, block: Block) {
        let Block {
            mut start,
            mut order,
        } = block;
        while order < MAX_ORDER {
            let buddy = Pfn(start.0 ^ (1 << order));
            let Some(frame) = map.get(buddy) else { break };
            if frame.word() != Word::new(State::Free, order, self.zone) {
                break;
            }
            self.remove(map, frame, order);
            let upper = Pfn(start.0 | (1 << order));
            // SAFETY: the head of one of the two blocks.
            unsafe { map.at(upper) }.set_word(Word::new(State::Tail, order + 1, self.zone));
            start = Pfn(start.0 & !(1 << order));
            order += 1;
        }
        self.insert(map, Block { start, order });
    }

    /// The order of the smallest free block of at least `order`.
    pub(crate) fn smallest(&self, order: usize) -> Option<usize> {
        let fitting = self.present >> order << order;
        (fitting != 0).then_some(fitting.trailing_zeros() as usize)
    }

    /// Cuts up to `most` blocks of `order` out of one free block, the smallest that there is;
    /// says where the first is and how many there are. The caller gives their frames new
    /// words.
    pub(crate) fn take_run<L: Layout>(
        &mut self,
        map: &FrameMap<L>,
        order: usize,
        most: u32,
    ) -> Option<(Pfn, u32)> {
        let large = self.smallest(order)?;
        let start = Pfn(self.lists[large].head);
        // SAFETY: what is in a list has a descriptor.
        self.remove(map, unsafe { map.at(start) }, large);
        let count = most.min(1 << (large - order));
        // What is left over, cut at its natural places. None of these has a free buddy: that
        // lies in the part that is taken, or was cut off here.
        let end = start.0 + (1 << large);
        let mut rest = start.0 + (count << order);
        while rest < end {
            let size = rest.trailing_zeros().min((end - rest).ilog2()) as usize;
            self.insert(
                map,
                Block {
                    start: Pfn(rest),
                    order: size,
                },
            );
            rest += 1 << size;
        }
        Some((start, count))
    }

    /// Takes one block. The caller gives its frames new words.
    pub(crate) fn take<L: Layout>(&mut self, map: &FrameMap<L>, order: usize) -> Option<Pfn> {
        self.take_run(map, order, 1).map(|(start, _)| start)
    }

    /// Calls `each` with the free blocks of an order.
    pub(crate) fn for_each<L: Layout>(
        &self,
        map: &FrameMap<L>,
        order: usize,
        mut each: impl FnMut(Pfn),
    ) {
        let mut at = self.lists[order].head;
        while at != NONE {
            each(Pfn(at));
            // SAFETY: what is in a list has a descriptor.
            at = unsafe { map.at(Pfn(at)) }.next.load(Ordering::Relaxed);
        }
    }
}

/// Writes the words of the frames of a block that is being handed out or listed.
#[inline]
pub(crate) fn mark_block<L: Layout>(
    map: &FrameMap<L>,
    start: Pfn,
    order: usize,
    state: State,
    zone: ZoneIndex,
) {
    // SAFETY: a block of a zone has descriptors.
    unsafe { map.at(start) }.set_word(Word::new(state, order, zone));
    let tail = Word::new(State::Tail, order, zone);
    for tail_at in 1..1 << order {
        // SAFETY: as above.
        unsafe { map.at(start.add(tail_at)) }.set_word(tail);
    }
}
