//! Frees that go into the quarantine.
//!
//! | there is | the object | counter |
//! |---|---|---|
//! | room for an entry, or a page for it | is filled, and at the end of the CPU's queue | `quarantine.enter` |
//! | then more than the limit | the oldest leave | `quarantine.leave` |
//! | the object, in a queue already | is refused: freed twice | `quarantine.double` |
//! | an object larger than the limit | is freed as without quarantine | `quarantine.too_large` |
//! | the lock taken | the same | `quarantine.busy` |
//! | no page | the same | `quarantine.no_memory` |

use core::{panic::Location, ptr::NonNull};

use platform::{Mark, Preempt, sync::Ordering};

use super::{Entry, POISON};
use crate::{
    Gfp,
    frame::Use,
    slab::{Hooks, KmemCache, Machine, Slab, arrows::Arrow, stats::Stat},
};

impl<M: Machine> KmemCache<M> {
    /// Takes an object that is freed into this CPU's quarantine, with all that [`hook_free`](Self::hook_free) does. `false`: the
    /// caller frees it as without one. Any context but NMI, no lock of the slab allocator held.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free), of a cache that does not go meanwhile.
    #[inline(never)]
    pub(in crate::slab) unsafe fn quarantine(
        &self,
        hooks: Hooks,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) -> bool {
        let slabs = self.slabs();
        let map = *slabs.mm().frames();
        // What is no object of this cache is not to be written to; whoever frees it finds it.
        let slab = Slab::<M>::of_address(map, object.addr().get())
            .filter(|slab| slab.owner() == Some(NonNull::from(self)));
        let Some(slab) = slab.filter(|slab| self.index_of(*slab, object).is_some()) else {
            return false;
        };
        // SAFETY: an object of the cache.
        if unsafe { self.is_poisoned(object) } && slabs.is_quarantined(object) {
            self.arrow(Arrow::QuarantineDouble);
            self.report_freed_twice(slab, object, caller);
            return true;
        }
        let preempt = Preempt::<M>::disable();
        let cpu = preempt.cpu();
        let Some(mut fifo) = slabs.quarantine.cpus[cpu.index()].fifo.try_lock() else {
            self.arrow(Arrow::QuarantineBusy);
            return false;
        };
        // With the lock, so that who lowers the limit and then has the lock has seen the last of those who had the old one.
        let (limit, bytes) = (slabs.quarantine_limit(), self.layout.size);
        if bytes as usize > limit {
            self.arrow(Arrow::QuarantineTooLarge);
            return false;
        }
        if !fifo.has_room() {
            // Never waits, so nothing is reclaimed from here.
            let Some(page) = slabs.mm().alloc_pages(Gfp::NOWAIT, 0, Use::Meta) else {
                self.arrow(Arrow::QuarantineNoMemory);
                return false;
            };
            let page = NonNull::new(map.address_of(page));
            // SAFETY: just allocated; it comes back in `give_page`. The direct map does not begin at 0.
            unsafe { fifo.add(page.unwrap_unchecked()) };
        }
        // The interesting place for an interrupt.
        M::mark(Mark::Step);
        if hooks.intersects(Hooks::FREED) {
            self.hook_free(hooks, object);
        }
        // SAFETY: the object is the allocator's; so many bytes are its user's.
        unsafe { POISON.fill(object, self.layout.usable as usize) };
        fifo.push(Entry {
            object,
            caller,
            at_ns: M::now_ns(),
            thread: <M as crate::machine::Machine>::thread_number(),
            bytes,
        });
        // Relaxed: under the queue's lock; who is to see it comes after this free.
        let count = &self.cpus.on(cpu).quarantined;
        count.fetch_add(1, Ordering::Relaxed);
        self.count(Stat::FreeSlowpath);
        self.arrow(Arrow::QuarantineEnter);
        // The cache is not touched from here on: the object may have left, and with it what kept the cache.
        while fifo.bytes() > limit && slabs.leave_oldest(cpu, &mut fifo, Arrow::QuarantineLeave) {}
        true
    }

    /// Whether all of an object is poison: then it is looked for.
    ///
    /// # Safety
    ///
    /// An object of the cache.
    unsafe fn is_poisoned(&self, object: NonNull<u8>) -> bool {
        let len = self.layout.usable as usize;
        // SAFETY: the object's first byte, and all of them.
        unsafe {
            POISON.compare(object, len.min(1)).is_none() && POISON.compare(object, len).is_none()
        }
    }
}
