//! What debugging does with fresh slabs, and with those that go.

use core::ptr::NonNull;

use super::super::{KmemCache, Machine, Slab};

impl<M: Machine> KmemCache<M> {
    /// Prepares a slab that was just made: before its objects are. Nothing in a plain cache.
    /// The slab's owner and word are set; nobody else knows of it.
    pub(crate) fn debug_new_slab(&self, slab: Slab<M>) {
        let _ = slab;
        panic!("not written yet")
    }

    /// Prepares an object of a fresh slab: before its constructor runs and its link is
    /// written. Nothing in a plain cache.
    pub(crate) fn debug_new_object(&self, slab: Slab<M>, object: NonNull<u8>) {
        let _ = (slab, object);
        panic!("not written yet")
    }

    /// Looks at an empty slab that goes back to the page allocator: its bytes are still
    /// there, and nobody else knows of it. Nothing in a plain cache.
    pub(crate) fn debug_old_slab(&self, slab: Slab<M>) {
        let _ = slab;
        panic!("not written yet")
    }
}
