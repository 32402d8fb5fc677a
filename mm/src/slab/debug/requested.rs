//! The size that a kmalloc object was asked for: what lies behind is red.

use core::ptr::NonNull;

use super::super::{KmemCache, Machine, Mode};

impl<M: Machine> KmemCache<M> {
    /// Whether the cache keeps what was asked for ([`note_requested`](Self::note_requested)
    /// does something): a kmalloc cache with STORE_USER.
    #[inline]
    pub(crate) fn keeps_requested(&self) -> bool {
        use super::super::Flags;
        self.flags.contains(Flags::KMALLOC.union(Flags::STORE_USER))
    }

    /// Notes that only the first `size` bytes of an object are its user's (after an
    /// allocation, which gives all of it; when `krealloc` stays in place): the rest becomes
    /// red, with RED_ZONE. In `NoLock` mode it may leave all of it the user's. Nothing in caches that do not
    /// [keep](Self::keeps_requested) it.
    ///
    /// # Safety
    ///
    /// The object is the caller's; `size` is at most the cache's object size.
    pub(crate) unsafe fn note_requested(&self, object: NonNull<u8>, size: usize, mode: Mode) {
        let _ = (object, size, mode);
        panic!("not written yet")
    }

    /// Bytes of an object that are its user's: what was noted, else all that are usable.
    ///
    /// # Safety
    ///
    /// The object is the caller's.
    pub(crate) unsafe fn requested(&self, object: NonNull<u8>) -> usize {
        let _ = object;
        panic!("not written yet")
    }
}
