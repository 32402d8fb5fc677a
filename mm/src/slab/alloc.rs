//! Allocation of one object.

use core::ptr::NonNull;

use platform::NodeId;

use super::{KmemCache, Machine};
use crate::Gfp;

impl<M: Machine> KmemCache<M> {
    /// An object. `None`: no memory (reported, unless `gfp` says not to). Any context that
    /// `gfp` is for; not in NMI (see [`alloc_nolock`](Self::alloc_nolock)).
    #[inline(always)]
    #[track_caller]
    pub fn alloc(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        let _ = gfp;
        panic!("not written yet")
    }

    /// An object in memory of `node`, or, if there is none (without `THISNODE`), of another.
    /// Context as for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn alloc_node(&self, gfp: Gfp, node: NodeId) -> Option<NonNull<u8>> {
        let _ = (gfp, node);
        panic!("not written yet")
    }
}
