//! Freeing of one object.

use core::ptr::NonNull;

use super::{KmemCache, Machine};

impl<M: Machine> KmemCache<M> {
    /// Frees an object. Any context but NMI (see [`free_nolock`](Self::free_nolock)).
    ///
    /// # Safety
    ///
    /// `object` is an object of this cache (or of one merged with it) that is allocated, and nobody uses it any more.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn free(&self, object: NonNull<u8>) {
        let _ = object;
        panic!("not written yet")
    }
}
