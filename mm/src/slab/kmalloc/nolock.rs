//! kmalloc in any context.

use core::{panic::Location, ptr::NonNull};

use platform::NodeId;

use super::{
    super::{Hooks, Machine, Mode, Slabs},
    SIZES, ZERO_SIZE,
    size::{aligned_like, class_of},
};
use crate::Gfp;

impl<M: Machine> Slabs<M> {
    /// [`kmalloc`](Self::kmalloc) for any context, NMI too, with any lock held; fails easily, but looks into the
    /// cache of the next larger size that is aligned as well, too, as Linux does: the code that
    /// this interrupts may be busy with the right one.
    ///
    /// Of `gfp` only `ZERO` matters. Nothing larger than [`MAX_CACHED`](super::MAX_CACHED).
    #[inline(always)]
    #[track_caller]
    pub fn kmalloc_nolock(
        &self,
        size: usize,
        gfp: Gfp,
        node: Option<NodeId>,
    ) -> Option<NonNull<u8>> {
        let caller = Location::caller();
        if node.is_none()
            && let Some(cache) = self.kmalloc_cache(size)
        {
            let gfp = gfp & Gfp::ZERO;
            // As in `kmalloc`.
            return cache.alloc_or(gfp, caller, |sheaves| {
                drop(sheaves);
                self.kmalloc_nolock_slowly(size, gfp, None, caller)
            });
        }
        self.kmalloc_nolock_slowly(size, gfp, node, caller)
    }

    #[cold]
    #[inline(never)]
    fn kmalloc_nolock_slowly(
        &self,
        size: usize,
        gfp: Gfp,
        node: Option<NodeId>,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        if size == 0 {
            return Some(ZERO_SIZE);
        }
        let classes = class_of(size)?..SIZES.len();
        for class in classes.filter(|class| aligned_like(*class, size)).take(2) {
            // SAFETY: the caches live since `start`.
            let cache = unsafe { self.kmalloc.at(class).as_ref() };
            let Some(object) = cache.alloc_nolock_for(node, Gfp::NOLOCK, caller) else {
                continue;
            };
            if gfp.contains(Gfp::ZERO) {
                // SAFETY: ours, and at least so large.
                unsafe { object.write_bytes(0, size) };
            }
            if cache.hooks().contains(Hooks::DEBUG) {
                cache.note_size_slow(object, size, Mode::NoLock);
            }
            return Some(object);
        }
        None
    }
}
