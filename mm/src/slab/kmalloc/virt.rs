//! kvmalloc: kmalloc where it succeeds, else memory that is adjacent only in the address space.

use core::ptr::NonNull;

use super::super::{Machine, Slabs};
use crate::{
    Gfp,
    frame::PAGE_SIZE,
    vmalloc::{Source, Vmalloc},
};

impl<M: Machine> Slabs<M> {
    /// [`kmalloc`](Self::kmalloc); or, where that has no adjacent pages without effort, memory of
    /// `vmalloc`, if `gfp` may sleep.
    #[track_caller]
    pub fn kvmalloc<S: Source>(
        &self,
        vmalloc: &Vmalloc<M, S>,
        size: usize,
        gfp: Gfp,
    ) -> Option<NonNull<u8>> {
        if size <= PAGE_SIZE || !gfp.contains(Gfp::RECLAIM) {
            return self.kmalloc(size, gfp);
        }
        // Adjacent pages are worth no reclaim: single ones will do.
        let easily = gfp.difference(Gfp::RECLAIM) | Gfp::NOWARN;
        self.kmalloc(size, easily)
            .or_else(|| vmalloc.vmalloc(size, gfp))
    }

    /// Frees what [`kvmalloc`](Self::kvmalloc), kmalloc or vmalloc gave. Any context but NMI.
    ///
    /// # Safety
    ///
    /// As [`kfree`](Self::kfree).
    #[track_caller]
    pub unsafe fn kvfree<S: Source>(&self, vmalloc: &Vmalloc<M, S>, memory: NonNull<u8>) {
        // SAFETY: as the caller promises.
        unsafe {
            if vmalloc.is_vmalloc(memory.addr().get()) {
                vmalloc.vfree(memory);
            } else {
                self.kfree(memory);
            }
        }
    }
}
