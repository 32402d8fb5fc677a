//! Giving many objects back to slabs.

use core::ptr::NonNull;

use super::{KmemCache, Machine, Mode};

impl<M: Machine> KmemCache<M> {
    /// Frees objects to their slabs, those of one slab by one exchange where they lie near each other in
    /// `objects`. How many are left, in `objects[..left]`, because a lock was taken: none in
    /// `Spin` mode. The order in `objects` is lost. Not for debug caches. Context: any but NMI, locks up to the
    /// barn's held; `NoLock`: any.
    ///
    /// # Safety
    ///
    /// All are objects of this cache (or of one merged with it) that the caller owns and gives up, but for those that are left.
    pub(crate) unsafe fn flush(&self, objects: &mut [NonNull<u8>], mode: Mode) -> usize {
        let _ = (objects, mode);
        panic!("not written yet")
    }
}
