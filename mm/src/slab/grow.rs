//! Fresh slabs.

use platform::NodeId;

use super::{KmemCache, Machine, Mode};
use crate::Gfp;

/// No memory for a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl<M: Machine> KmemCache<M> {
    /// Makes a fresh slab and puts it on its node's list of partial slabs; the caller tries again there. Of
    /// `node` or near it (`None`: near this CPU); `gfp` says how, as for pages (ZERO is ignored). Constructors run
    /// here, with no lock held. Context: as `gfp` says, no lock of the slab allocator held; `NoLock`: any.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; reported, unless `gfp` says not to.
    pub(crate) fn grow(
        &self,
        node: Option<NodeId>,
        gfp: Gfp,
        mode: Mode,
    ) -> Result<NodeId, NoMemory> {
        let _ = (node, gfp, mode);
        panic!("not written yet")
    }
}
