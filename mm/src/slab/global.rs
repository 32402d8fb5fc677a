//! What a `GlobalAlloc` needs: kmalloc with any alignment.

use core::{alloc::Layout, ptr::NonNull};

use super::{Machine, Slabs, kmalloc::size::aligned};
use crate::{Gfp, frame::PAGE_SIZE};

impl<M: Machine> Slabs<M> {
    /// Memory of a layout, with any alignment up to that of the largest block of pages. To be
    /// freed by [`kfree`](Self::kfree), and changed in size by
    /// [`realloc_layout`](Self::realloc_layout). `None`: no memory, or the alignment is too
    /// large. Context as `gfp` says, but NMI.
    #[inline]
    #[track_caller]
    pub fn alloc_layout(&self, layout: Layout, gfp: Gfp) -> Option<NonNull<u8>> {
        let wanted = aligned(layout.size(), layout.align())?;
        if layout.align() > PAGE_SIZE && wanted > 0 {
            // Blocks of pages are aligned to their size.
            self.kmalloc_large(wanted, gfp, None)
        } else {
            self.kmalloc(wanted, gfp)
        }
    }

    /// [`alloc_layout`](Self::alloc_layout) for any context, NMI too, with any lock held; fails
    /// easily. Of `gfp` only `ZERO` matters. Nothing larger than
    /// [`MAX_CACHED`](super::kmalloc::MAX_CACHED), or aligned to more than a page.
    #[track_caller]
    pub fn alloc_layout_nolock(&self, layout: Layout, gfp: Gfp) -> Option<NonNull<u8>> {
        let wanted = aligned(layout.size(), layout.align())?;
        let wanted = Some(wanted).filter(|_| layout.align() <= PAGE_SIZE)?;
        self.kmalloc_nolock(wanted, gfp, None)
    }

    /// Changes the size of what [`alloc_layout`](Self::alloc_layout) gave, in place where
    /// it fits. `None`: no memory, and nothing has changed.
    ///
    /// # Safety
    ///
    /// The memory came from there with this layout, whose size is not 0, and is the caller's; if there is a
    /// result, the old address is not used any more. `size` is not 0.
    #[track_caller]
    pub unsafe fn realloc_layout(
        &self,
        memory: NonNull<u8>,
        layout: Layout,
        size: usize,
        gfp: Gfp,
    ) -> Option<NonNull<u8>> {
        // SAFETY: as the caller promises.
        unsafe { self.resize(memory, size, layout.align(), gfp) }
    }
}
