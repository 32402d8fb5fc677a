//! Prefilled sheaves: objects that are there before they are needed.

use core::ptr::NonNull;

use super::{KmemCache, Machine, sheaf::Sheaf};
use crate::Gfp;

/// A sheaf with objects, for code that will allocate where that may not fail. Dropped, it
/// goes back to the cache with what is left in it.
pub struct Prefilled<'a, M: Machine> {
    cache: &'a KmemCache<M>,
    sheaf: NonNull<Sheaf>,
}

impl<M: Machine> KmemCache<M> {
    /// A sheaf with at least `count` objects; also with more than the cache's sheaves have
    /// room for. `None`: no memory. Context as for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn prefill(&self, gfp: Gfp, count: usize) -> Option<Prefilled<'_, M>> {
        let _ = (gfp, count);
        panic!("not written yet")
    }
}

impl<M: Machine> Prefilled<'_, M> {
    /// An object of the sheaf; `None`: it is empty. Only [`Gfp::ZERO`] of `gfp` matters. Any
    /// context.
    #[track_caller]
    pub fn alloc(&mut self, gfp: Gfp) -> Option<NonNull<u8>> {
        let _ = gfp;
        panic!("not written yet")
    }

    /// Sees to it that there are at least `count` objects; `false`: no memory, and what was
    /// there is still there. Context as for [`KmemCache::alloc`].
    #[track_caller]
    pub fn refill(&mut self, gfp: Gfp, count: usize) -> bool {
        let _ = (gfp, count, self.cache);
        panic!("not written yet")
    }

    /// Objects in it.
    pub fn len(&self) -> usize {
        // SAFETY: the sheaf is this one's.
        unsafe { self.sheaf.as_ref() }.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<M: Machine> Drop for Prefilled<'_, M> {
    fn drop(&mut self) {
        panic!("not written yet")
    }
}
