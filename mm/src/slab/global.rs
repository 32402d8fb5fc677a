//! What a `GlobalAlloc` needs: kmalloc with any alignment.

use core::{alloc::Layout, ptr::NonNull};

use super::{Machine, Slabs};
use crate::Gfp;

impl<M: Machine> Slabs<M> {
    /// Memory of a layout, with any alignment up to that of the largest block of pages.
    /// Free it by [`kfree`](Self::kfree), change its size by [`realloc_layout`](Self::realloc_layout). `None`: no
    /// memory, or the alignment is too large. Context as `gfp` says.
    #[track_caller]
    pub fn alloc_layout(&self, layout: Layout, gfp: Gfp) -> Option<NonNull<u8>> {
        let _ = (layout, gfp);
        panic!("not written yet")
    }

    /// Changes the size of what [`alloc_layout`](Self::alloc_layout) gave; in place where
    /// it fits. `None`: no memory, and nothing has changed.
    ///
    /// # Safety
    ///
    /// The memory came from there with this layout and is the caller's; if there is a result, the
    /// old address is not used any more.
    #[track_caller]
    pub unsafe fn realloc_layout(
        &self,
        memory: NonNull<u8>,
        layout: Layout,
        size: usize,
        gfp: Gfp,
    ) -> Option<NonNull<u8>> {
        let _ = (memory, layout, size, gfp);
        panic!("not written yet")
    }
}
