//! How objects leave the quarantine: to their slabs, after their poison was compared.
//!
//! | who | which | counter |
//! |---|---|---|
//! | a free that makes it more than the limit | the oldest | `quarantine.leave` |
//! | the end of a cache, or its shrinking | those of the cache, on all CPUs | `quarantine.flush` |
//! | a lower limit; a CPU that has gone; memory pressure | the oldest, or all | `quarantine.drain` |
//!
//! Of each one whose poison was overwritten there is a report (`quarantine.written`); it is freed all the same: who wrote there is no
//! owner of it.

use core::ptr::NonNull;

use platform::{CpuId, sync::Ordering};

use super::{Entry, Fifo, POISON};
use crate::{
    frame::Use,
    slab::{Caches, Hooks, KmemCache, Machine, Mode, Slab, Slabs, arrows::Arrow},
};

/// Objects that leave while a lock is held, before others may have it.
const BATCH: usize = 32;

impl<M: Machine> Slabs<M> {
    /// The oldest object of a queue leaves it. `false`: there is none. With the queue's lock.
    pub(super) fn leave_oldest(&self, cpu: CpuId, fifo: &mut Fifo, arrow: Arrow) -> bool {
        let Some(entry) = fifo.pop(|page| self.give_page(page)) else {
            return false;
        };
        // SAFETY: taken out.
        unsafe { self.leave(cpu, &entry, arrow) };
        true
    }

    /// Frees an object that has left the queue of `cpu`, whose lock is held.
    ///
    /// # Safety
    ///
    /// It was taken out, so nobody else has it.
    unsafe fn leave(&self, cpu: CpuId, entry: &Entry, arrow: Arrow) {
        let object = entry.object;
        // SAFETY: an object in use: it keeps its slab, and that the cache; the count does until that is taken back. All bytes
        // are the allocator's.
        unsafe {
            let slab = Slab::<M>::of_object(*self.mm().frames(), object);
            let cache = slab.cache();
            let cache = cache.as_ref();
            let hooks = cache.hooks();
            // The destroyer waits for the count; this is for objects that somebody frees against its contract.
            let dying = hooks.contains(Hooks::DYING);
            if dying {
                cache.hold();
            }
            cache.arrow(arrow);
            if let Some(wrong) = POISON.compare(object, cache.layout.usable as usize) {
                cache.arrow(Arrow::QuarantineWritten);
                cache.report_written(slab, cpu, entry, wrong);
            }
            if hooks.contains(Hooks::ZERO_ON_FREE) {
                cache.zero(object);
            }
            let freed = cache.free_single(slab, object, Mode::Spin, entry.caller);
            debug_assert!(freed.is_ok(), "waits for locks");
            // Release: who reads 0 (Acquire, in `quarantined_on`) sees the object at rest. The last access, unless the cache is held.
            let count = &cache.cpus.on(cpu).quarantined;
            let was = count.fetch_sub(1, Ordering::Release);
            debug_assert!(was > 0, "what leaves was counted");
            if dying {
                cache.release();
            }
        }
    }

    /// A page of a queue is not needed any more.
    fn give_page(&self, page: NonNull<u8>) {
        if let Some(pfn) = self.mm().frames().pfn_of_address(page.addr().get()) {
            // SAFETY: allocated for the queue, which gave it away.
            unsafe { self.mm().free_pages(pfn, 0, Use::Meta) };
        }
    }

    /// The oldest of what is in the quarantine of a CPU, which may be offline, leave, until there are no more than
    /// `keep` bytes; not those that come meanwhile. Not in NMI, nor in an interrupt; no lock of the slab allocator held.
    pub(in crate::slab) fn quarantine_drain(&self, cpu: CpuId, keep: usize) {
        let queue = &self.quarantine.cpus[cpu.index()].fifo;
        let mut left = queue.lock().len();
        while left > 0 {
            let mut fifo = queue.lock();
            for _ in 0..BATCH.min(left) {
                if fifo.bytes() <= keep
                    || !self.leave_oldest(cpu, &mut fifo, Arrow::QuarantineDrain)
                {
                    return;
                }
            }
            left = left.saturating_sub(BATCH);
        }
    }

    /// All objects leave, of all CPUs; the quarantine goes on. About how many frames of slabs were freed. May sleep.
    pub(in crate::slab) fn quarantine_empty(&self, caches: &Caches<'_, M>) -> usize {
        if self.quarantine_limit() == 0 {
            return 0;
        }
        let frames = || caches.iter().map(KmemCache::frames_glance).sum::<usize>();
        let before = frames();
        for cpu in M::possible_cpus().iter() {
            self.quarantine_drain(cpu, 0);
        }
        before.saturating_sub(frames())
    }

    /// Whether an object is in a queue, as far as their locks are free. Any context but NMI.
    pub(super) fn is_quarantined(&self, object: NonNull<u8>) -> bool {
        M::possible_cpus().iter().any(|cpu| {
            let mut found = false;
            if let Some(fifo) = self.quarantine.cpus[cpu.index()].fifo.try_lock() {
                fifo.for_each(|_| true, |entry| found |= entry.object == object);
            }
            found
        })
    }
}

impl<M: Machine> KmemCache<M> {
    /// All objects of the cache leave the quarantines of all CPUs, also of those that are offline. Not in NMI, nor in an
    /// interrupt; no lock of the slab allocator held.
    ///
    /// Once it returns nobody is about to free an object that was there when it began.
    pub(in crate::slab) fn quarantine_flush(&self) {
        let slabs = self.slabs();
        let map = *slabs.mm().frames();
        for cpu in M::possible_cpus().iter() {
            if self.quarantined_on(cpu) == 0 {
                continue;
            }
            let mut fifo = slabs.quarantine.cpus[cpu.index()].fifo.lock();
            let leaves = |entry: &Entry| {
                // SAFETY: an object in use keeps its slab.
                let slab = unsafe { Slab::<M>::of_object(map, entry.object) };
                let is_own = slab.owner() == Some(NonNull::from(self));
                if is_own {
                    // SAFETY: the sweep takes it out.
                    unsafe { slabs.leave(cpu, entry, Arrow::QuarantineFlush) };
                }
                is_own
            };
            fifo.sweep(leaves, |page| slabs.give_page(page));
        }
    }
}
