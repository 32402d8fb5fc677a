//! Allocation and freeing where no lock may be waited for: any context, NMI too, with any
//! lock held, also with one of the slab allocator's own, which this may have interrupted.
//!
//! Every lock on the way is tried: the CPU's local lock, the barn's, the node's list lock, those
//! of the page allocator. An allocation that finds them taken fails; a free that does is
//! [deferred](super::deferred). Nothing is flushed here, and no sheaf allocated.

use core::{panic::Location, ptr::NonNull};

use platform::NodeId;

use super::{
    KmemCache, Machine, Mode, Slab, arrows::Arrow, barn::Stack, cache::Hooks, percpu::pair_of,
    percpu::zone_pair, sheaf::Sheaf, stats::Stat,
};
use crate::Gfp;

impl<M: Machine> KmemCache<M> {
    /// An object (of `node`, if that is given), if there is one without waiting for anything;
    /// fails easily. Any context, NMI too, with any lock held.
    #[inline(always)]
    #[track_caller]
    pub fn alloc_nolock(&self, node: Option<NodeId>) -> Option<NonNull<u8>> {
        let caller = Location::caller();
        if node.is_some() {
            return self.alloc_nolock_for(node, Gfp::NOLOCK, caller);
        }
        self.alloc_or(Gfp::NOLOCK, caller, |sheaves| {
            drop(sheaves);
            self.alloc_nolock_for(None, Gfp::NOLOCK, caller)
        })
    }

    /// [`alloc_nolock`](Self::alloc_nolock), zeroed if `gfp` says so.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_nolock_for(
        &self,
        node: Option<NodeId>,
        gfp: Gfp,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        let node = match node {
            Some(node) => Some(self.slabs().mm().nearest_memory(node)?),
            None => None,
        };
        let object = match self.take_nolock(node) {
            Some(object) => {
                self.count(Stat::AllocFastpath);
                object
            }
            None => {
                self.count(Stat::AllocSlowpath);
                let quick = (gfp.intersection(Gfp::THISNODE)) | Gfp::NOLOCK | Gfp::NOWARN;
                self.alloc_single(node, quick, Mode::NoLock, caller)?
            }
        };
        self.hand_out(gfp, object, caller)
    }

    /// An object of this CPU's sheaves, or, by way of main, of the barn's.
    fn take_nolock(&self, node: Option<NodeId>) -> Option<NonNull<u8>> {
        let Some((mut sheaves, home)) = self.lock_here() else {
            self.count(Stat::AllocLockTaken);
            self.arrow(Arrow::NolockAllocTaken);
            return None;
        };
        // SAFETY: the lock is held, so main is this one's.
        unsafe {
            if Sheaf::len(sheaves.main) == 0 && !sheaves.swap_for_objects() {
                // Without waiting nothing is one too many.
                let mut surplus = Stack::default();
                if !self.exchange_empty_main(&mut sheaves, home, Mode::NoLock, &mut surplus) {
                    return None;
                }
                debug_assert!(surplus.top.is_none(), "refused instead");
            }
            let object = Sheaf::pop(sheaves.main)?;
            if node.is_none_or(|node| self.pair_of_object(object) == pair_of(node)) {
                return Some(object);
            }
            self.count(Stat::AllocNodeMismatch);
            Sheaf::push(sheaves.main, object);
        }
        None
    }

    /// Frees an object, now or soon. Any context, NMI too, with any lock held.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free).
    #[inline(always)]
    #[track_caller]
    pub unsafe fn free_nolock(&self, object: NonNull<u8>) {
        let hooks = self.hooks();
        let caller = Location::caller();
        // SAFETY: as the caller promises. The lock is held.
        unsafe {
            if hooks.intersects(Hooks::FREE) {
                return self.free_nolock_slowly(hooks, object, caller);
            }
            let Some((sheaves, home)) = self.lock_here() else {
                return self.free_nolock_slowly(hooks, object, caller);
            };
            let is_remote = hooks.contains(Hooks::NUMA) && home != self.pair_of_object(object);
            if is_remote || !Sheaf::push(sheaves.main, object) {
                drop(sheaves);
                return self.free_nolock_slowly(hooks, object, caller);
            }
        }
        self.count(Stat::FreeFastpath);
    }

    /// [`free_nolock`](Self::free_nolock) where there is more to do.
    ///
    /// # Safety
    ///
    /// As for [`free_nolock`](Self::free_nolock).
    #[inline(never)]
    unsafe fn free_nolock_slowly(
        &self,
        hooks: Hooks,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        let dying = hooks.contains(Hooks::DYING);
        if dying {
            // The object may be the last thing that keeps the cache.
            self.hold();
        }
        // SAFETY: as the caller promises; the `hold` above.
        unsafe {
            if hooks.contains(Hooks::DEBUG) {
                self.count(Stat::FreeSlowpath);
                // It looks what the object is before anything is done to it.
                if !self.debug_free(object, Mode::NoLock, caller) {
                    self.defer(object);
                }
            } else {
                self.free_plain_nolock(hooks, object, caller);
            }
            if dying {
                self.release();
            }
        }
    }

    /// The same for a cache that is no debug cache.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free); the object keeps the cache.
    #[inline(always)]
    unsafe fn free_plain_nolock(
        &self,
        hooks: Hooks,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        if hooks.intersects(Hooks::FREED) {
            self.hook_free(hooks, object);
        }
        // SAFETY: as the caller promises.
        unsafe {
            let slab = Slab::of_object(*self.slabs().mm().frames(), object);
            let in_sheaf =
                !hooks.contains(Hooks::DYING) && self.push_nolock(zone_pair(slab.frame()), object);
            if in_sheaf {
                return self.count(Stat::FreeFastpath);
            }
            self.count(Stat::FreeSlowpath);
            let freed = self.free_single(slab, object, Mode::NoLock, caller);
            if freed.is_err() {
                self.defer(object);
            }
        }
    }

    /// Puts an object into this CPU's main sheaf, into which room is brought if that needs no
    /// waiting.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free), if this gives `true`.
    unsafe fn push_nolock(&self, pair: u32, object: NonNull<u8>) -> bool {
        let Some((mut sheaves, home)) = self.lock_here() else {
            self.count(Stat::FreeLockTaken);
            self.arrow(Arrow::NolockFreeTaken);
            return false;
        };
        if home != pair {
            self.count(Stat::FreeRemote);
            return false;
        }
        // SAFETY: the lock is held, so main is this one's; as the caller promises.
        unsafe {
            Sheaf::push(sheaves.main, object)
                || self.make_room_nolock(&mut sheaves, home) && Sheaf::push(sheaves.main, object)
        }
    }
}
