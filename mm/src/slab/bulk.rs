//! Allocation and freeing of many objects.

use core::{mem::MaybeUninit, ptr::NonNull};

use super::{KmemCache, Machine};
use crate::Gfp;

impl<M: Machine> KmemCache<M> {
    /// Fills `into` with objects: all of it (the result is its length), or nothing (0).
    /// Context as for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn alloc_bulk(&self, gfp: Gfp, into: &mut [MaybeUninit<NonNull<u8>>]) -> usize {
        let _ = (gfp, into);
        panic!("not written yet")
    }

    /// Frees objects. Context as for [`free`](Self::free).
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free), for each of them; no object is named twice.
    #[track_caller]
    pub unsafe fn free_bulk(&self, objects: &[NonNull<u8>]) {
        let _ = objects;
        panic!("not written yet")
    }
}
