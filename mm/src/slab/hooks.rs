//! What allocations and frees do beyond a push or a pop. Each looks once at the cache's word of
//! [`Hooks`], and comes here if a bit that concerns it is set.

use core::{panic::Location, ptr::NonNull};

use super::{KmemCache, Machine, Mode, Slab, cache::Hooks};
use crate::Gfp;

impl Hooks {
    /// What concerns allocations.
    pub(crate) const ALLOC: Self = Self::ZERO_ON_ALLOC.union(Self::FAULTS).union(Self::PROFILE);
    /// What concerns frees, before the object goes anywhere.
    pub(crate) const FREE: Self = Self::ZERO_ON_FREE
        .union(Self::PROFILE)
        .union(Self::DEBUG)
        .union(Self::DYING)
        .union(Self::QUARANTINE);
    /// What is done with the object that is freed, wherever it goes.
    pub(crate) const FREED: Self = Self::ZERO_ON_FREE.union(Self::PROFILE);
}

impl<M: Machine> KmemCache<M> {
    /// The end of every allocation of one object but prefilled ones: hands it out, unless it is
    /// made to fail. Any context.
    #[inline(always)]
    pub(crate) fn hand_out(
        &self,
        gfp: Gfp,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        let hooks = self.hooks();
        if !gfp.contains(Gfp::ZERO) && !hooks.intersects(Hooks::ALLOC) {
            return Some(object);
        }
        self.hand_out_hooked(hooks, gfp, object, caller)
    }

    #[inline(never)]
    fn hand_out_hooked(
        &self,
        hooks: Hooks,
        gfp: Gfp,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        if hooks.contains(Hooks::FAULTS) && self.should_fail(gfp) {
            // SAFETY: nobody has had the object.
            unsafe { self.give_up(object, caller) };
            return None;
        }
        self.hook_alloc(hooks, gfp, object, caller);
        Some(object)
    }

    /// The end of an allocation from a prefilled sheaf, which never fails.
    #[inline(always)]
    pub(crate) fn hand_out_prefilled(
        &self,
        gfp: Gfp,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        let hooks = self.hooks();
        if gfp.contains(Gfp::ZERO) || hooks.intersects(Hooks::ALLOC.difference(Hooks::FAULTS)) {
            self.hook_alloc(hooks, gfp, object, caller);
        }
    }

    /// Whether an allocation of several objects is made to fail. Any context.
    #[inline(always)]
    pub(crate) fn fails(&self, gfp: Gfp) -> bool {
        self.hooks().contains(Hooks::FAULTS) && self.should_fail(gfp)
    }

    /// An object is handed out: zeroes it if that is wanted, accounts it. Any context.
    #[inline(never)]
    pub(crate) fn hook_alloc(
        &self,
        hooks: Hooks,
        gfp: Gfp,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        let _ = caller;
        if gfp.contains(Gfp::ZERO) || hooks.contains(Hooks::ZERO_ON_ALLOC) {
            // SAFETY: the object is the allocator's.
            unsafe { self.zero(object) };
        }
    }

    /// Frees an object that nobody has had, without hooks. Any context, NMI too.
    ///
    /// # Safety
    ///
    /// The caller owns the object, and gives it up.
    #[cold]
    unsafe fn give_up(&self, object: NonNull<u8>, caller: &'static Location<'static>) {
        // SAFETY: as the caller promises.
        unsafe {
            let slab = Slab::of_object(*self.slabs().mm().frames(), object);
            if self
                .free_single(slab, object, Mode::NoLock, caller)
                .is_err()
            {
                self.defer(object);
            }
        }
    }

    /// An object comes back: it is the allocator's from now on. Any context.
    #[inline(never)]
    pub(crate) fn hook_free(&self, hooks: Hooks, object: NonNull<u8>) {
        if hooks.contains(Hooks::ZERO_ON_FREE) {
            // SAFETY: the object is the allocator's.
            unsafe { self.zero(object) };
        }
    }

    /// Writes zeros to an object, unless it is to stay as its constructor left it.
    ///
    /// # Safety
    ///
    /// The object is the caller's.
    #[inline(always)]
    pub(super) unsafe fn zero(&self, object: NonNull<u8>) {
        use super::Flags;
        if self.constructor.is_none() && !self.flags.contains(Flags::TYPESAFE_BY_RCU) {
            // SAFETY: the caller's; so many bytes are its user's.
            unsafe { object.write_bytes(0, self.layout.usable as usize) };
        }
    }
}
