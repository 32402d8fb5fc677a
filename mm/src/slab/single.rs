//! One object, from and to its slab.

use core::{panic::Location, ptr::NonNull};

use platform::NodeId;

use super::{KmemCache, Machine, Mode, Slab, node::Node};
use crate::Gfp;

/// A lock was taken, and may not be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl<M: Machine> KmemCache<M> {
    /// Takes one object from the partial slabs of a node. Makes no slab. Not for debug caches. Context as for
    /// [`refill_from`](Self::refill_from).
    pub(crate) fn take_one_from(&self, node: &Node<M>, mode: Mode) -> Option<NonNull<u8>> {
        let _ = (node, mode);
        panic!("not written yet")
    }

    /// One object, without sheaves and barns: from partial slabs of `node` (`None`: of this CPU's), then of a fresh one
    /// there, then of other nodes by distance, then of a fresh one anywhere, as `gfp` allows (THISNODE: only of
    /// `node`). Debug caches' objects are checked and prepared. No hooks but those. Context: as `gfp` says, no lock of the slab
    /// allocator held; `NoLock`: any.
    pub(crate) fn alloc_single(
        &self,
        node: Option<NodeId>,
        gfp: Gfp,
        mode: Mode,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        let _ = (node, gfp, mode, caller);
        panic!("not written yet")
    }

    /// Frees one object to its slab, without sheaves and barns. A debug cache checks it, and may refuse it
    /// with a report (which is no error here). No hooks but that. Context as for [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// [`Busy`] (in `NoLock` only): nothing has happened.
    ///
    /// # Safety
    ///
    /// `object` is an object of this cache in `slab` that the caller owns and gives up.
    pub(crate) unsafe fn free_single(
        &self,
        slab: Slab<M>,
        object: NonNull<u8>,
        mode: Mode,
        caller: &'static Location<'static>,
    ) -> Result<(), Busy> {
        let _ = (slab, object, mode, caller);
        panic!("not written yet")
    }
}
