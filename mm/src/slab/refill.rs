//! Taking many objects from slabs.

use core::ptr::NonNull;

use super::{KmemCache, Machine, Mode, node::Node};

impl<M: Machine> KmemCache<M> {
    /// Takes up to `want` free objects from the partial slabs of a node: how many; they are in
    /// `into`. Makes no slab. Not for debug caches. Context: any but NMI, locks up to the barn's held; `NoLock`: any.
    ///
    /// # Safety
    ///
    /// `into` has room for `want` pointers, which are the caller's.
    pub(crate) unsafe fn refill_from(
        &self,
        node: &Node<M>,
        into: *mut NonNull<u8>,
        want: usize,
        mode: Mode,
    ) -> usize {
        let _ = (node, into, want, mode);
        panic!("not written yet")
    }
}
