//! What allocations and frees do beyond a push or a pop.

use core::{panic::Location, ptr::NonNull};

use super::{KmemCache, Machine, cache::Hooks};
use crate::Gfp;

impl<M: Machine> KmemCache<M> {
    /// An object is about to be handed out: zeroes it if that is wanted, asks whether the
    /// allocation shall fail (then `false`; the object stays the allocator's), accounts it.
    #[cold]
    #[inline(never)]
    pub(crate) fn hook_alloc(
        &self,
        hooks: Hooks,
        gfp: Gfp,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) -> bool {
        let _ = (hooks, gfp, object, caller);
        panic!("not written yet")
    }

    /// An object comes back.
    #[cold]
    #[inline(never)]
    pub(crate) fn hook_free(&self, hooks: Hooks, object: NonNull<u8>) {
        let _ = (hooks, object);
        panic!("not written yet")
    }
}
