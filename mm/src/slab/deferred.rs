//! Frees that could not be made where they were asked for, because a lock was taken.
//!
//! Each CPU has a stack of objects, linked through the objects themselves (where their caches
//! keep links of free objects), and an item of [deferred work](platform::deferred), which frees
//! them soon after, in an interrupt of that CPU.
//!
//! | arrow | the object is | to | who |
//! |---|---|---|---|
//! | `deferred.count` | the freer's | the freer's, counted in [`KmemCache::deferred`] | a free that found a lock taken |
//! | `deferred.push` | the freer's | on the CPU's stack | the same, by compare-and-exchange; then it queues the work |
//! | `deferred.run` | on the stack | the work's | the work takes all by one swap |
//! | `deferred.freed` | the work's | free, in its slab; then no longer counted | the work: as its last access to the cache |
//!
//! *Counted before it is linked, until it rests in its slab*: so the count is never less than what
//! is on the stacks, and whoever knows that no further free begins and reads 0 (Acquire) knows that
//! there is none under way, and sees all that they did (Release). Else a cache could be destroyed
//! while the work is about to free into it.
//!
//! Only *push* and *take all* exist, so a head that was taken and came back in between (ABA) does no
//! harm. The links are seen by who takes them: Release of the push, Acquire of the swap; a push
//! between is a read-modify-write and carries the release on. An NMI that comes in the middle
//! of a push makes its exchange fail, and it is tried again.
//!
//! The work cannot be lost: it is queued after the push, and a run that begins after that takes
//! what was pushed ([`platform::deferred`]).

use core::{
    panic::Location,
    ptr::{NonNull, null_mut},
};

use platform::{
    MAX_CPUS, Preempt,
    deferred::{Function, Work, queue, sync},
    sync::{AtomicPtr, AtomicU64, Ordering},
};

use super::{KmemCache, Machine, Mode, Slab, Slabs, arrows::Arrow, stats::Stat};

/// A stack of objects: pushed to from any context, taken as a whole.
#[derive(Debug)]
pub struct Objects {
    head: AtomicPtr<u8>,
}

impl Objects {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            head: AtomicPtr::new(null_mut()),
        }
    }

    /// Counts an object, and pushes it. Any context.
    ///
    /// # Safety
    ///
    /// The caller owns the object, and gives it up; `link` is a word in it, which who takes it
    /// finds by the same rule.
    pub unsafe fn push(&self, count: &AtomicU64, object: NonNull<u8>, link: &AtomicPtr<u8>) {
        // Before it is linked: see the module. Relaxed: the push publishes it to who takes the
        // object, and whoever waits for 0 knows of this free by something else.
        count.fetch_add(1, Ordering::Relaxed);
        // Relaxed: the exchange checks what was read.
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // Relaxed: published by the exchange.
            link.store(head, Ordering::Relaxed);
            // Release pairs with the Acquire in `take`.
            match self.head.compare_exchange_weak(
                head,
                object.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// An object that was taken rests in its slab: it is not counted any more.
    pub fn rests(count: &AtomicU64) {
        // Release: who reads 0 (Acquire) sees the object at rest.
        let was = count.fetch_sub(1, Ordering::Release);
        debug_assert!(was > 0, "what rests was counted before");
    }

    /// Takes all: the latest. Those before it follow by their links, and are the caller's.
    pub fn take(&self) -> Option<NonNull<u8>> {
        // Acquire pairs with the Release in `push`.
        NonNull::new(self.head.swap(null_mut(), Ordering::Acquire))
    }

    /// The latest, to be looked at: by who keeps it from being freed (the machine is stopped).
    pub fn peek(&self) -> Option<NonNull<u8>> {
        NonNull::new(self.head.load(Ordering::Acquire))
    }
}

impl Default for Objects {
    fn default() -> Self {
        Self::new()
    }
}

/// A CPU's. Not on one line with another's.
#[repr(C, align(64))]
pub(crate) struct Here<M: Machine> {
    /// At the beginning: its address is the whole's.
    work: Work,
    pub objects: Objects,
    /// Heads of objects for which `kfree_rcu` is to be called.
    pub rcu: Objects,
    /// Written before the allocator is used.
    slabs: AtomicPtr<Slabs<M>>,
}

/// Every CPU's deferred frees.
pub(crate) struct Deferred<M: Machine> {
    pub cpus: [Here<M>; MAX_CPUS],
}

impl<M: Machine> Deferred<M> {
    /// Nothing is deferred.
    pub fn new() -> Self {
        let here = |_| Here {
            work: Work::new(Function {
                run: Here::<M>::run,
                release: None,
            }),
            objects: Objects::new(),
            rcu: Objects::new(),
            slabs: AtomicPtr::new(null_mut()),
        };
        Self {
            cpus: core::array::from_fn(here),
        }
    }

    /// The allocator is where it will stay; nothing was deferred.
    pub fn settle_in(&self, slabs: &Slabs<M>) {
        for here in &self.cpus {
            // Relaxed: nobody else is there yet.
            here.slabs
                .store(core::ptr::from_ref(slabs).cast_mut(), Ordering::Relaxed);
        }
    }
}

impl<M: Machine> Here<M> {
    /// Whether its work neither runs nor is to.
    pub fn is_idle(&self) -> bool {
        self.work.is_idle()
    }

    /// # Safety
    ///
    /// `work` is that of a `Here` of an allocator that lives.
    unsafe fn run(work: NonNull<Work>) {
        // SAFETY: as the caller promises; the pointer was made from the whole.
        let this = unsafe { work.cast::<Self>().as_ref() };
        // SAFETY: it is a part of the allocator, which waits for its work before it goes.
        let slabs = unsafe { &*this.slabs.load(Ordering::Relaxed) };
        let map = *slabs.mm().frames();
        let mut next = this.objects.take();
        while let Some(object) = next {
            // SAFETY: what was pushed is an object of a slab; it keeps the slab and its cache
            // until it is free, and the count does until that is taken back.
            unsafe {
                let slab = Slab::<M>::of_object(map, object);
                let cache = slab.cache();
                let cache = cache.as_ref();
                // Read before it is freed.
                next = NonNull::new(cache.deferred_link(object).load(Ordering::Relaxed));
                cache.free_deferred(slab, object);
            }
        }
        // SAFETY: the allocator's own stack of heads.
        unsafe { slabs.run_deferred_rcu(&this.rcu) };
    }
}

impl<M: Machine> KmemCache<M> {
    /// Where a deferred object has the link to the next one.
    ///
    /// # Safety
    ///
    /// It is an object of this cache that nobody else uses, for as long as the result is used.
    pub(crate) unsafe fn deferred_link(&self, object: NonNull<u8>) -> &AtomicPtr<u8> {
        // SAFETY: where links lie there are 8 bytes, aligned to 8.
        unsafe {
            object
                .add(self.layout.link as usize)
                .cast::<AtomicPtr<u8>>()
                .as_ref()
        }
    }

    /// Has an object freed soon. Any context, NMI too, with any lock held.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free).
    pub(super) unsafe fn defer(&self, object: NonNull<u8>) {
        self.count(Stat::FreeDeferred);
        self.arrow(Arrow::DeferredPush);
        let preempt = Preempt::<M>::disable();
        let here = &self.slabs().deferred.cpus[preempt.cpu().index()];
        // SAFETY: as the caller promises. The allocator stays where it is, and waits for its
        // work before it goes.
        unsafe {
            let link = self.deferred_link(object);
            here.objects.push(&self.deferred, object, link);
            queue::<M>(NonNull::from_ref(here).cast());
        }
    }

    /// The end of a deferred free.
    ///
    /// # Safety
    ///
    /// The object was [deferred](Self::defer), and taken off its stack by the caller.
    unsafe fn free_deferred(&self, slab: Slab<M>, object: NonNull<u8>) {
        self.arrow(Arrow::DeferredRun);
        let dying = self.is_dying();
        if dying {
            self.hold();
        }
        // SAFETY: as the caller promises; the `hold` above.
        unsafe {
            let freed = self.free_single(slab, object, Mode::Spin, Location::caller());
            debug_assert!(freed.is_ok(), "waits for locks");
            // The last access, unless the cache is kept.
            Objects::rests(&self.deferred);
            if dying {
                self.release();
            }
        }
    }
}

impl<M: Machine> Slabs<M> {
    /// Waits until all frees that were deferred before this are made. Task context with
    /// interrupts on, no spinning lock held.
    pub(crate) fn deferred_sync(&self) {
        for here in &self.deferred.cpus {
            sync::<M>(&here.work);
        }
    }
}
