//! Memory that is too large for a cache: a block of pages, which is what it counts as.

use core::{panic::Location, ptr::NonNull};

use platform::NodeId;

use super::super::{Machine, Slabs};
use crate::{
    Gfp,
    frame::{PAGE_SIZE, Use},
    report::Kind,
};

/// The order of the smallest block for `size` bytes, which are not 0; may be more than there
/// are.
pub(super) const fn order_of(size: usize) -> usize {
    let last = (size - 1) / PAGE_SIZE;
    (usize::BITS - last.leading_zeros()) as usize
}

impl<M: Machine> Slabs<M> {
    /// A block of pages for `size` bytes, which are not 0. `None`: there is none, or none is so
    /// large.
    #[track_caller]
    pub(crate) fn kmalloc_large(
        &self,
        size: usize,
        gfp: Gfp,
        node: Option<NodeId>,
    ) -> Option<NonNull<u8>> {
        let order = order_of(size);
        if order > crate::frame::MAX_ORDER {
            return self.too_large(size, gfp, Location::caller());
        }
        // Bits that are for slabs mean nothing to pages.
        let gfp = gfp.difference(Gfp::NO_SHEAF);
        let pfn = match node {
            None => self.mm().alloc_pages(gfp, order, Use::Kmalloc),
            Some(node) => self.mm().alloc_pages_node(node, gfp, order, Use::Kmalloc),
        }?;
        NonNull::new(self.mm().frames().address_of(pfn))
    }

    #[cold]
    fn too_large(
        &self,
        size: usize,
        gfp: Gfp,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        if !gfp.intersects(Gfp::NOWARN | Gfp::NOLOCK) {
            let details = format_args!("kmalloc of {size} bytes ({gfp}): more than any block has");
            self.mm().report(Kind::OutOfMemory, None, details, caller);
        }
        None
    }
}
