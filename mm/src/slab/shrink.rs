//! Giving memory back: on demand, and when the machine is short of it.

use core::ptr::{NonNull, null_mut};

use platform::{
    CpuMask,
    sync::{AtomicPtr, AtomicU64, Ordering},
};

use super::{KmemCache, Machine, Slabs, arrows::Arrow, sheaf::Sheaf};
use crate::{
    frame::PAGE_SIZE,
    reclaim::{Shrink, Wanted},
};

impl<M: Machine> KmemCache<M> {
    /// Gives back what the cache could do without: what is in quarantine, in CPUs' sheaves and barns, then
    /// empty slabs. About how many frames were freed; not those that wait for a grace period
    /// (TYPESAFE_BY_RCU). Task context that may sleep.
    pub fn shrink(&self) -> usize {
        let before = self.frames_glance();
        self.quarantine_flush();
        self.drain_all();
        self.empty_barns();
        self.shrink_nodes();
        before.saturating_sub(self.frames_glance())
    }

    /// The same, but for what is in CPUs' sheaves.
    fn shrink_idle(&self) -> usize {
        let before = self.frames_glance();
        self.empty_barns();
        self.shrink_nodes();
        before.saturating_sub(self.frames_glance())
    }

    fn shrink_nodes(&self) {
        self.all_nodes().for_each(|node| {
            self.shrink_node(node);
        });
    }

    /// Frames of its slabs, about: smaller ones count as the others.
    pub(super) fn frames_glance(&self) -> usize {
        // Relaxed: a statistic.
        let slabs = self
            .all_nodes()
            .map(|node| node.slabs.load(Ordering::Relaxed));
        (slabs.sum::<u64>() as usize) << self.layout.order
    }

    /// Frames that its barns' objects fill, and those in quarantine, about.
    fn idle_glance(&self) -> usize {
        let full: usize = self.all_nodes().map(|node| node.barn.glance().0).sum();
        let objects = full * self.capacity() as usize + self.quarantined() as usize;
        objects * self.layout.size as usize / PAGE_SIZE
    }

    /// Flushes every CPU's sheaves of a live cache, and frees them; one that is offline has none.
    /// Once it returns, every section of a CPU's local lock that began before it has ended. Task
    /// context that may sleep.
    pub(crate) fn drain_all(&self) {
        let taken = AtomicPtr::new(null_mut());
        let mut left = M::online_cpus();
        while !left.is_empty() {
            let busy = AtomicU64::new(0);
            M::call(left, &|| {
                if !self.take_sheaves_here(&taken) {
                    self.arrow(Arrow::DrainBusy);
                    let here = CpuMask::only(M::current_cpu());
                    // Relaxed: the call orders it.
                    busy.fetch_or(here.bits(), Ordering::Relaxed);
                }
            });
            // A section is short, and whoever is in it gets on when the call is over.
            left = CpuMask::from_bits(busy.load(Ordering::Relaxed));
        }
        // Relaxed: the calls order it.
        let mut next = NonNull::new(taken.load(Ordering::Relaxed));
        while let Some(sheaf) = next {
            // SAFETY: taken out, so nobody else's.
            unsafe {
                next = (*sheaf.as_ptr()).next.take();
                self.flush_and_free(sheaf);
            }
        }
    }

    /// Takes this CPU's sheaves, for who flushes them. `false`: they are in use by what this has
    /// interrupted.
    fn take_sheaves_here(&self, taken: &AtomicPtr<Sheaf>) -> bool {
        let Some((mut sheaves, _)) = self.lock_here() else {
            return false;
        };
        let own = sheaves.take();
        drop(sheaves);
        for sheaf in own.into_iter().flatten() {
            self.arrow(Arrow::CpuDrained);
            let mut head = taken.load(Ordering::Relaxed);
            loop {
                // SAFETY: taken out, so nobody else's.
                unsafe { (*sheaf.as_ptr()).next = NonNull::new(head) };
                // Relaxed: the end of the call orders it all for who takes them.
                match taken.compare_exchange_weak(
                    head,
                    sheaf.as_ptr(),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => break,
                    Err(now) => head = now,
                }
            }
        }
        true
    }

    /// Flushes what is in the barns, and frees their sheaves. Not in NMI, no lock of the slab
    /// allocator held.
    pub(crate) fn empty_barns(&self) {
        for node in self.all_nodes() {
            let mut sheaves = node.barn.take_all();
            while let Some(sheaf) = sheaves.full.pop() {
                self.arrow(Arrow::BarnEmptied);
                // SAFETY: taken out, so nobody else's.
                unsafe { self.flush_and_free(sheaf) };
            }
            // SAFETY: the same; they are empty.
            unsafe { self.free_sheaves(sheaves.empty) };
        }
    }
}

/// When memory is short quarantines are emptied, then barns are, and empty slabs given back, first those of all
/// caches; if that is not enough, CPUs' sheaves are flushed, too.
impl<M: Machine> Shrink for Slabs<M> {
    fn name(&self) -> &'static str {
        "slab"
    }

    fn count(&self) -> u64 {
        let Some(caches) = self.try_caches() else {
            return 0;
        };
        caches.iter().map(KmemCache::idle_glance).sum::<usize>() as u64
    }

    fn scan(&self, wanted: Wanted) -> u64 {
        // The thread may be the one that has the list.
        let Some(caches) = self.try_caches() else {
            return 0;
        };
        let mut freed = self.quarantine_empty(&caches) as u64;
        for shrink in [KmemCache::shrink_idle, KmemCache::shrink] {
            for cache in caches.iter().filter(|cache| !cache.is_dying()) {
                if freed >= wanted.frames {
                    return freed;
                }
                freed += shrink(cache) as u64;
            }
        }
        freed
    }
}
