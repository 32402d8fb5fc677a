//! What page frames are, and the slabs among them.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{At, Fault, Problem, Room, Tally};
use crate::{
    frame::{Pfn, State, Use},
    machine::Layout,
    slab::{Flags, KmemCache, Machine, Place, Slab, Slabs},
};

/// What a walk found of a node of a cache. Only the one walk that there is at a time writes
/// it; atomic because it lies in what is shared.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    pub(super) slabs: AtomicU64,
    pub(super) objects: AtomicU64,
    pub(super) waiting: AtomicU64,
    pub(super) partial: AtomicU64,
    pub(super) full: AtomicU64,
}

impl Walked {
    pub(super) fn clear(&self) {
        for sum in [
            &self.slabs,
            &self.objects,
            &self.waiting,
            &self.partial,
            &self.full,
        ] {
            sum.store(0, Relaxed);
        }
    }
}

fn add(sum: &AtomicU64, value: u64) {
    // One writer.
    sum.store(sum.load(Relaxed) + value, Relaxed);
}

impl<M: Machine> Slabs<M> {
    /// Looks at every frame of a window, and compares its slabs with the table, which is full
    /// of that window.
    ///
    /// # Safety
    ///
    /// As [`walk`](Slabs::walk).
    pub(super) unsafe fn walk_pages(
        &self,
        room: &mut Room,
        from: Pfn,
        to: Pfn,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let map = *self.mm().frames();
        let base = map.layout().direct_map();
        let mut known = None;
        let mut at = from;
        while at < to {
            let Some(word) = map.get(at).map(crate::Frame::word) else {
                break;
            };
            let frames = match word.state() {
                // The page allocator's own accounts are right: orders are.
                State::Free | State::Listed | State::Later | State::Bad | State::Used(_) => {
                    1 << word.order()
                }
                State::Hole | State::Reserved | State::Boot | State::Tail => 1,
            };
            let pages = &mut tally.pages;
            let sum = match word.state() {
                State::Free | State::Listed | State::Later => &mut pages.free,
                State::Used(Use::Slab) => &mut pages.slabs,
                State::Used(Use::Kmalloc) => &mut pages.large,
                State::Used(_) => &mut pages.other,
                State::Bad => &mut pages.bad,
                State::Boot => &mut pages.boot,
                State::Hole | State::Reserved | State::Tail => {
                    at = at.add(frames);
                    continue;
                }
            };
            *sum += u64::from(frames);
            let bytes = at.index() << 12..at.add(frames).index() << 12;
            let here = room.between(bytes.start, bytes.end);
            if word.state() == State::Used(Use::Slab) {
                // SAFETY: the head of a slab.
                let slab = unsafe { Slab::<M>::at(map, at) };
                let owner = slab.owner();
                if owner != known {
                    // SAFETY: nobody else runs.
                    let mut caches = unsafe { self.caches_unlocked() };
                    known = owner.filter(|own| caches.any(|c| core::ptr::eq(c, own.as_ptr())));
                }
                let Some(cache) = known else {
                    let owner = owner.map_or(0, |owner| owner.addr().get());
                    return Err(Fault::general(Problem::Owner(at, owner)));
                };
                // SAFETY: one of the caches.
                unsafe { cache.as_ref().walk_slab(slab, room, here, tally)? };
            } else if word.state() != State::Used(Use::Kmalloc) && !here.is_empty() {
                // What is in sheaves was found to lie in slabs: these are sheaves.
                let entry = room.get(here.start);
                let problem = Problem::SheafMemory(entry.at, base + entry.address);
                return Err(Fault::general(problem));
            }
            at = at.add(frames);
        }
        Ok(())
    }
}

impl<M: Machine> KmemCache<M> {
    /// Checks a slab against its word and the entries of the table that lie in it.
    ///
    /// # Safety
    ///
    /// As [`walk`](Slabs::walk); the slab is this cache's.
    unsafe fn walk_slab(
        &self,
        slab: Slab<M>,
        room: &mut Room,
        here: core::ops::Range<usize>,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let pfn = slab.pfn();
        let layout = self.layout();
        let word = slab.freelist().load();
        let order = slab.order();
        let order_fits =
            order == usize::from(layout.order) || order == usize::from(layout.min_order);
        if !order_fits || word.objects() != layout.objects_of(order) {
            return Err(self.fault(Problem::Order(pfn, order, word.objects())));
        }
        room.clear_marks(word.objects());
        // SAFETY: as the caller promises.
        let free = unsafe { self.walk_links(slab, room)? };
        if free != word.free() {
            return Err(self.fault(Problem::Free(pfn, free, word.free())));
        }
        let base = self.slabs().mm().layout().direct_map();
        for number in here {
            let entry = room.get(number);
            let address = base + entry.address;
            let object = core::ptr::NonNull::new(core::ptr::with_exposed_provenance_mut(address));
            // What is in sheaves was found to be objects; a sheaf's memory need not begin one.
            let index = object.and_then(|object| self.index_of(slab, object));
            let fresh = index.is_none_or(|index| room.mark(index));
            if !fresh {
                return Err(self.fault(Problem::Twice {
                    object: address,
                    first: At::Freelist,
                    second: entry.at,
                }));
            }
        }
        self.walk_place(slab)?;
        tally.slabs += 1;
        tally.objects += word.objects() as u64;
        tally.free += free as u64;
        Ok(())
    }

    /// Follows the freelist, and marks what is on it; how many.
    unsafe fn walk_links(&self, slab: Slab<M>, room: &mut Room) -> Result<usize, Fault> {
        let word = slab.freelist().load();
        let mut link = word.head();
        let mut count = 0;
        while !link.is_none() {
            let index = link.index();
            let broken = self.fault(Problem::Link(slab.pfn(), count));
            // A mark that is there already is a circle.
            if index >= word.objects() || !room.mark(index) {
                return Err(broken);
            }
            count += 1;
            // SAFETY: the cache's slab; what is read is checked.
            link = unsafe { self.read_link(slab, index) }.map_err(|_| broken)?;
        }
        Ok(count)
    }

    /// Checks where the slab is, and adds it to its node's sums.
    fn walk_place(&self, slab: Slab<M>) -> Result<(), Fault> {
        let word = slab.freelist().load();
        let place = slab.place();
        let has_free = word.free() > 0;
        let fits = match place {
            Place::Partial => has_free,
            Place::Full => !has_free && !self.flags().intersects(Flags::DEBUG),
            Place::DebugFull => !has_free && self.flags().intersects(Flags::DEBUG),
            Place::WaitsForRcu => word.is_empty() && self.flags().contains(Flags::TYPESAFE_BY_RCU),
        };
        let node = self.node(slab.frame().word().zone().node());
        let Some(node) = node.filter(|_| fits) else {
            return Err(self.fault(Problem::Place(slab.pfn(), place, word)));
        };
        let walked = &node.walked;
        if place == Place::WaitsForRcu {
            add(&walked.waiting, 1);
            return Ok(());
        }
        add(&walked.slabs, 1);
        add(&walked.objects, word.objects() as u64);
        match place {
            Place::Partial => add(&walked.partial, 1),
            Place::DebugFull => add(&walked.full, 1),
            Place::Full | Place::WaitsForRcu => {}
        }
        Ok(())
    }
}
