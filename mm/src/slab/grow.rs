//! Fresh slabs.

use core::sync::atomic::Ordering;

use platform::NodeId;

use super::{
    KmemCache, Machine, Mode, Slab,
    arrows::Arrow,
    stats::Stat,
    word::{Freelist, Link},
};
use crate::{Gfp, Pfn, Use};

/// No memory for a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl<M: Machine> KmemCache<M> {
    /// Makes a fresh slab and puts it on its node's list of partial slabs; the caller tries again there. Of
    /// `node` or near it (`None`: near this CPU); `gfp` says how, as for pages (ZERO is ignored). Constructors run
    /// here, with no lock held. Context: as `gfp` says, no lock of the slab allocator held; `NoLock`: any.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; reported, unless `gfp` says not to. `NoLock`: also if the list lock is taken.
    pub(crate) fn grow(
        &self,
        node: Option<NodeId>,
        gfp: Gfp,
        mode: Mode,
    ) -> Result<NodeId, NoMemory> {
        let pfn = self.slab_pages(node, gfp, mode).ok_or(NoMemory)?;
        // SAFETY: a block for a slab, which lives until it is discarded.
        let slab = unsafe { Slab::<M>::at(*self.slabs().mm().frames(), pfn) };
        let order = slab.order();
        let Some(node) = self.node_of(slab) else {
            // A node that got memory after the cache was made.
            // SAFETY: allocated above, and nobody knows of it.
            unsafe { self.slabs().mm().free_pages_nolock(pfn, order, Use::Slab) };
            return Err(NoMemory);
        };
        let objects = self.layout.objects_of(order);
        self.prepare(slab, objects);
        self.hold();
        node.count_slab(objects);
        self.count(Stat::AllocSlab);
        let Some(mut lists) = node.lock(mode) else {
            self.arrow(Arrow::SlabMadeLost);
            // No reader has seen it, so it need not wait for a grace period.
            // SAFETY: made above, and nobody knows of it.
            unsafe { self.unmake(node, slab, mode) };
            return Err(NoMemory);
        };
        let word = slab.freelist();
        word.set(word.load().with_listed(true));
        // In front: it is for who asks now.
        lists.partial.push_front(slab);
        node.publish(&lists);
        drop(lists);
        self.arrow(Arrow::SlabMade);
        Ok(node.id)
    }

    /// Pages for a slab: of the order that suits best, else of the smallest.
    fn slab_pages(&self, node: Option<NodeId>, gfp: Gfp, mode: Mode) -> Option<Pfn> {
        let (order, min_order) = (self.layout.order as usize, self.layout.min_order as usize);
        let mut gfp = gfp.difference(Gfp::ZERO | Gfp::NO_SHEAF);
        if mode == Mode::NoLock {
            gfp = gfp.difference(Gfp::RECLAIM) | Gfp::NOLOCK | Gfp::NOWARN;
        }
        let alloc = |gfp: Gfp, order: usize| match node {
            Some(node) => {
                let mm = self.slabs().mm();
                mm.alloc_pages_node(node, gfp, order, Use::Slab)
            }
            None => self.slabs().mm().alloc_pages(gfp, order, Use::Slab),
        };
        if order == min_order {
            return alloc(gfp, order);
        }
        // Reclaim, reserves and reports are for what is really needed.
        let gently = gfp.difference(Gfp::RECLAIM | Gfp::HIGH) | Gfp::NOWARN;
        if let Some(pfn) = alloc(gently, order) {
            return Some(pfn);
        }
        let pfn = alloc(gfp, min_order)?;
        self.count(Stat::OrderFallback);
        self.arrow(Arrow::SlabMadeSmaller);
        Some(pfn)
    }

    /// Makes a block of pages a slab that is on no list, with all objects free.
    fn prepare(&self, slab: Slab<M>, objects: usize) {
        let frame = slab.frame();
        // Until the links are there nothing is free.
        slab.freelist()
            .set(Freelist::new(Link::NONE, objects, objects));
        // Relaxed: the slab is published by the list lock. (Who walks all frames looks again.)
        frame.extra.store(0, Ordering::Relaxed);
        frame.tag.store(0, Ordering::Relaxed);
        let cache = core::ptr::from_ref(self).expose_provenance();
        frame.owner.store(cache, Ordering::Relaxed);
        self.debug_new_slab(slab);
        if self.is_debug() || self.constructor.is_some() {
            for index in 0..objects {
                let object = self.object_at(slab, index);
                if self.is_debug() {
                    self.debug_new_object(slab, object);
                }
                if let Some(constructor) = self.constructor {
                    constructor(object);
                }
            }
        }
        let head = match self.slabs().debug.shuffle() {
            Some(seed) => self.link_shuffled(slab, objects, seed),
            None => self.link_in_order(slab, objects),
        };
        slab.freelist().set(Freelist::new(head, 0, objects));
    }

    /// Links all objects, each to the one behind it: the first one.
    #[inline]
    fn link_in_order(&self, slab: Slab<M>, objects: usize) -> Link {
        // SAFETY: nobody knows of the slab yet.
        unsafe {
            if self.secret == 0 {
                self.link_row::<false>(slab, objects);
            } else {
                self.link_row::<true>(slab, objects);
            }
            self.write_link(self.object_at(slab, objects - 1), Link::NONE);
        }
        Link::of_index(0)
    }

    /// Links all objects but the last one to the ones behind them.
    ///
    /// # Safety
    ///
    /// The slab is the caller's, and has so many objects.
    #[inline(always)]
    unsafe fn link_row<const MIXED: bool>(&self, slab: Slab<M>, objects: usize) {
        // Copies: writes to objects might be to the cache, for all that the compiler knows.
        let (size, link) = (self.layout.size as usize, self.layout.link as usize);
        let mut object = self.first_object(slab);
        for next in 1..objects {
            // SAFETY: an object of the slab, and the caller's; the next one is within the slab.
            unsafe {
                self.write_word::<MIXED>(object, link, !(next as u64));
                object = object.add(size);
            }
        }
    }

    /// Links all objects in a random order: the first one. By S. Sattolo's algorithm ("An algorithm to generate a random cyclic permutation",
    /// Information Processing Letters 22, 1986) the links become one cycle, all cycles equally likely; it is cut before a random object.
    fn link_shuffled(&self, slab: Slab<M>, objects: usize, seed: u64) -> Link {
        let mut random = seed;
        let mut below = |end: usize| {
            // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014); a multiplication instead of a remainder.
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (((mixed >> 32) * end as u64) >> 32) as usize
        };
        let write = |index: usize, next: usize| {
            // SAFETY: nobody knows of the slab yet.
            unsafe { self.write_link(self.object_at(slab, index), Link::of_index(next)) };
        };
        let read = |index: usize| {
            // SAFETY: as above; it was written.
            let link = unsafe { self.read_link(slab, index) };
            // A constructor has kept a pointer to the object, if it was written to since.
            link.map_or(index, Link::index)
        };
        for index in 0..objects {
            write(index, index);
        }
        for index in (1..objects).rev() {
            let other = below(index);
            let (a, b) = (read(index), read(other));
            write(index, b);
            write(other, a);
        }
        let last = below(objects);
        let first = read(last);
        // SAFETY: nobody knows of the slab yet.
        unsafe { self.write_link(self.object_at(slab, last), Link::NONE) };
        Link::of_index(first)
    }
}
