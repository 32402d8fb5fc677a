//! Allocation and freeing where no lock may be waited for: any context, NMI too, with any
//! lock held.

use core::ptr::NonNull;

use platform::NodeId;

use super::{KmemCache, Machine};

impl<M: Machine> KmemCache<M> {
    /// An object, if there is one without waiting for anything; fails easily. Any context,
    /// NMI too, with any lock held.
    #[track_caller]
    pub fn alloc_nolock(&self, node: Option<NodeId>) -> Option<NonNull<u8>> {
        let _ = node;
        panic!("not written yet")
    }

    /// Frees an object, now or soon. Any context, NMI too, with any lock held.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free).
    #[track_caller]
    pub unsafe fn free_nolock(&self, object: NonNull<u8>) {
        let _ = object;
        panic!("not written yet")
    }
}
