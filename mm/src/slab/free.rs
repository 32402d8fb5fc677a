//! Freeing of one object.
//!
//! | what there is | what is done |
//! |---|---|
//! | room in main | the object is pushed: the fast path |
//! | main is full, the spare has room | they change places |
//! | no spare, the barn has an empty sheaf | main becomes the spare, the empty one main |
//! | a full spare, the barn has room and an empty sheaf | exchanged for main |
//! | the barn has no empty sheaf | the local lock is given back and one is allocated; then as above |
//! | there is no memory for one | the spare (or main) is flushed to its slabs, and is the empty sheaf |
//! | a full spare, the barn has no room | the spare is flushed to its slabs, and is the empty sheaf |
//! | the local lock is taken | the object goes to its slab |
//! | the object is of another node | the same |

use core::{panic::Location, ptr::NonNull};

use super::{
    KmemCache, Machine, Mode, Slab,
    arrows::Arrow,
    cache::Hooks,
    percpu::{SheavesGuard, zone_pair},
    sheaf::Sheaf,
    stats::Stat,
};

impl<M: Machine> KmemCache<M> {
    /// Frees an object. Any context but NMI (see [`free_nolock`](Self::free_nolock)).
    ///
    /// # Safety
    ///
    /// `object` is an object of this cache (or of one merged with it) that is allocated, and
    /// nobody uses it any more.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn free(&self, object: NonNull<u8>) {
        let hooks = self.hooks();
        // SAFETY: as the caller promises. The lock is held.
        unsafe {
            // Two paths, so that the one without nodes has nothing of the other.
            if !hooks.intersects(Hooks::FREE | Hooks::NUMA) {
                return self.free_here(false, object, Location::caller());
            }
            if hooks.intersects(Hooks::FREE) {
                return self.free_hooked(hooks, object, Location::caller());
            }
            self.free_here(true, object, Location::caller());
        }
    }

    /// An object goes into this CPU's sheaves; if it may be of another node (`numa`), and is, to its slab.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free).
    #[inline(always)]
    unsafe fn free_here(
        &self,
        numa: bool,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        // SAFETY: as the caller promises. The lock is held.
        unsafe {
            let Some((sheaves, home)) = self.lock_here() else {
                return self.free_without_lock(object, caller);
            };
            if numa && home != self.pair_of_object(object) {
                return self.free_remote(sheaves, object, caller);
            }
            if !Sheaf::push(sheaves.main, object) {
                return self.free_to_full(sheaves, object, caller);
            }
        }
        self.count(Stat::FreeFastpath);
    }

    /// A free that has found main full; with the lock held, as for allocations.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free).
    #[cold]
    #[inline(never)]
    unsafe fn free_to_full(
        &self,
        sheaves: SheavesGuard<'_, M>,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        self.count(Stat::FreeSlowpath);
        // SAFETY: the lock is held, and there is room; or else the object goes to its slab.
        unsafe {
            if let Some(sheaves) = self.make_room_in(sheaves, true) {
                let pushed = Sheaf::push(sheaves.main, object);
                debug_assert!(pushed, "there was room");
                return;
            }
            self.free_to_slab(object, caller);
        }
    }

    /// Freeing where there is more to do.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free).
    #[cold]
    #[inline(never)]
    unsafe fn free_hooked(
        &self,
        hooks: Hooks,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            if hooks.intersects(Hooks::DEBUG | Hooks::DYING) {
                return self.free_past_sheaves(hooks, object, caller);
            }
            if hooks.contains(Hooks::QUARANTINE) && self.quarantine(hooks, object, caller) {
                return;
            }
            self.hook_free(hooks, object);
            self.free_here(hooks.contains(Hooks::NUMA), object, caller);
        }
    }

    /// The local lock is taken, so the object goes to its slab.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free).
    #[cold]
    #[inline(never)]
    unsafe fn free_without_lock(&self, object: NonNull<u8>, caller: &'static Location<'static>) {
        self.count(Stat::FreeSlowpath);
        self.count(Stat::FreeLockTaken);
        self.arrow(Arrow::FreeLockTaken);
        // SAFETY: as the caller promises.
        unsafe { self.free_to_slab(object, caller) };
    }

    /// An object of another node goes to its slab. The lock is given back first.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free).
    #[cold]
    #[inline(never)]
    unsafe fn free_remote(
        &self,
        sheaves: SheavesGuard<'_, M>,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        drop(sheaves);
        self.count(Stat::FreeRemote);
        self.arrow(Arrow::FreeRemote);
        // SAFETY: as the caller promises.
        unsafe { self.free_to_slab(object, caller) };
    }

    /// Frees an object of a debug cache, or of one that is going.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free).
    #[cold]
    unsafe fn free_past_sheaves(
        &self,
        hooks: Hooks,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        self.count(Stat::FreeSlowpath);
        let dying = hooks.contains(Hooks::DYING);
        if dying {
            self.arrow(Arrow::FreeDying);
            // The object may be the last thing that keeps the cache.
            self.hold();
        }
        // SAFETY: as the caller promises; the `hold` above.
        unsafe {
            if hooks.contains(Hooks::DEBUG) {
                // It looks what the object is before anything is done to it.
                self.debug_free(object, Mode::Spin, caller);
            } else {
                if hooks.intersects(Hooks::FREED) {
                    self.hook_free(hooks, object);
                }
                self.free_to_slab(object, caller);
            }
            if dying {
                self.release();
            }
        }
    }

    /// Frees an object to its slab.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free).
    pub(super) unsafe fn free_to_slab(
        &self,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        // SAFETY: as the caller promises. A lock that is taken is waited for.
        unsafe {
            let slab = Slab::of_object(*self.slabs().mm().frames(), object);
            let freed = self.free_single(slab, object, Mode::Spin, caller);
            debug_assert!(freed.is_ok(), "waits for locks");
        }
    }

    /// Frees an object to main if there is room, else to its slab; makes no sheaf: for the
    /// memory of sheaves.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free); it lies in `slab`.
    pub(super) unsafe fn free_plainly(&self, slab: Slab<M>, object: NonNull<u8>) {
        let hooks = self.hooks();
        // SAFETY: as the caller promises.
        unsafe {
            if !hooks.contains(Hooks::DEBUG) {
                if hooks.intersects(Hooks::FREED) {
                    self.hook_free(hooks, object);
                }
                let pair = zone_pair(slab.frame());
                if let Some((sheaves, home)) = self.lock_here()
                    && home == pair
                    && Sheaf::push(sheaves.main, object)
                {
                    return;
                }
            }
            self.arrow(Arrow::FreeSheafMemory);
            let freed = self.free_single(slab, object, Mode::Spin, Location::caller());
            debug_assert!(freed.is_ok(), "waits for locks");
        }
    }
}
