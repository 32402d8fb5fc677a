//! `kfree_rcu` in any context: NMI, and with any lock held.
//!
//! What fits into the open rcu sheaf goes there. No batch is opened or closed, since neither a
//! lane's lock can be waited for nor a callback queued: all else is linked by its head on a stack of its CPU, and queued by deferred
//! work in an interrupt soon after ([`deferred`](crate::slab::deferred)). It is counted in its cache before it is linked, until it is
//! in the engine's hands; so a destroyer that finds 0 misses none.

use core::{panic::Location, ptr::NonNull};

use platform::{
    Preempt,
    deferred::queue,
    sync::{AtomicU64, Ordering},
};

use super::{Head, loose::Item};
use crate::slab::{
    Hooks, KmemCache, Machine, Slabs, arrows::Arrow, deferred::Objects, sheaf::Sheaf, stats::Stat,
};

impl<M: Machine> Slabs<M> {
    /// [`kfree_rcu`](Self::kfree_rcu) for any context, NMI too, with any lock held.
    ///
    /// # Safety
    ///
    /// As for that.
    #[track_caller]
    pub unsafe fn kfree_rcu_nolock(&self, memory: NonNull<u8>, head: NonNull<Head>) {
        if memory == crate::slab::ZERO_SIZE {
            return;
        }
        let cache = self.cache_of(memory);
        // SAFETY: the object keeps its cache; as the caller promises.
        unsafe {
            if let Some(cache) = cache
                && cache.as_ref().free_rcu_at_once(memory)
            {
                return;
            }
            self.defer_rcu(memory, head);
        }
    }

    /// Where the calls are counted that are to be made for some memory.
    fn deferred_count(&self, memory: NonNull<u8>) -> &AtomicU64 {
        match self.cache_of(memory) {
            // SAFETY: the object keeps its cache.
            Some(cache) => unsafe { &(*cache.as_ptr()).deferred },
            None => &self.kvfree_rcu.deferred,
        }
    }

    /// # Safety
    ///
    /// As for [`kfree_rcu`](Self::kfree_rcu).
    unsafe fn defer_rcu(&self, memory: NonNull<u8>, head: NonNull<Head>) {
        self.arrow(Arrow::RcuDefer);
        let preempt = Preempt::<M>::disable();
        let here = &self.deferred.cpus[preempt.cpu().index()];
        let count = self.deferred_count(memory);
        // SAFETY: the head's memory is the caller's; the allocator stays where it is, and waits for its work before it goes.
        unsafe {
            Head::fill(head, None, Item::new(memory, false).memory().as_ptr());
            // The link is the head's first word, so a head is linked as an object is.
            let link = &*(&raw const (*head.as_ptr()).next).cast();
            here.rcu.push(count, head.cast(), link);
            queue::<M>(NonNull::from_ref(here).cast());
        }
    }

    /// Queues all that was deferred on a CPU: its deferred work.
    ///
    /// # Safety
    ///
    /// `stack` is one of this allocator's, of heads.
    pub(crate) unsafe fn run_deferred_rcu(&self, stack: &Objects) {
        let mut next = stack.take().map(NonNull::cast::<Head>);
        while let Some(head) = next {
            // SAFETY: what was pushed is a head, which is this one's now. The object keeps its cache until its grace
            // period, which is not over before this interrupt is.
            unsafe {
                let (behind, memory) = Head::read(head);
                next = behind;
                let memory = NonNull::new_unchecked(memory);
                let count = self.deferred_count(memory);
                self.arrow(Arrow::RcuDeferRun);
                self.kfree_rcu_of(memory, head, Location::caller());
                Objects::rests(count);
            }
        }
    }

    /// Waits for deferred frees, and deferred calls of `kfree_rcu`, of a cache; whether there were any. Task context.
    pub(super) fn sync_deferred(&self, cache: &KmemCache<M>) -> bool {
        // Acquire pairs with the Release of the end of a deferred free.
        let any = cache.deferred.load(Ordering::Acquire) > 0;
        if any {
            self.deferred_sync();
        }
        any
    }

    /// The same, for all that was deferred.
    pub(super) fn sync_deferred_rcu(&self) {
        let mut cpus = self.deferred.cpus.iter();
        if cpus.any(|here| here.rcu.peek().is_some() || !here.is_idle()) {
            self.deferred_sync();
        }
    }
}

impl<M: Machine> KmemCache<M> {
    /// Puts an object into this CPU's open rcu sheaf, if it fits there.
    ///
    /// # Safety
    ///
    /// As for [`Slabs::kfree_rcu`], if this gives `true`.
    unsafe fn free_rcu_at_once(&self, object: NonNull<u8>) -> bool {
        let hooks = self.hooks();
        if hooks.intersects(Hooks::DEBUG | Hooks::DYING) {
            return false;
        }
        let Some((sheaves, home)) = self.lock_here() else {
            return false;
        };
        // SAFETY: as the caller promises; the lock is held.
        let pushed = unsafe {
            (!hooks.contains(Hooks::NUMA) || home == self.pair_of_object(object))
                && sheaves
                    .rcu_free
                    .is_some_and(|open| Sheaf::push_rcu(open, object))
        };
        drop(sheaves);
        if pushed {
            self.count(Stat::FreeRcuSheaf);
        }
        pushed
    }
}
