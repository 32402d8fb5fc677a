//! Where vmalloc gets frames from.

use platform::NodeId;

use crate::{
    frame::{Frame, Pfn, State, Use},
    gfp::Gfp,
    machine::Machine,
    mm::Mm,
};

/// A page allocator, as vmalloc sees it.
///
/// # Safety
///
/// `mm` relies on: a block that was allocated is nobody else's until it is freed, and is
/// memory at the address that is said.
pub unsafe trait Source: Send + Sync {
    /// Allocates `2^order` frames near `node` (`None`: near the CPU).
    fn alloc(&self, node: Option<NodeId>, gfp: Gfp, order: usize, usage: Use) -> Option<Pfn>;

    /// Frees a block.
    ///
    /// # Safety
    ///
    /// It was allocated with this order for this use, and nobody uses it any more.
    unsafe fn free(&self, pfn: Pfn, order: usize, usage: Use);

    /// A frame's descriptor.
    fn frame(&self, pfn: Pfn) -> Option<&Frame>;

    /// Where a frame's memory appears.
    fn address_of(&self, pfn: Pfn) -> *mut u8;

    /// The block at an address of the direct map, if a block in use begins there: its first
    /// frame, its order, and its use.
    fn block_at(&self, address: usize) -> Option<(Pfn, usize, Use)>;

    /// Frames that there are, in use or not.
    fn total(&self) -> u64;
}

// SAFETY: what the page allocator promises.
unsafe impl<M: Machine> Source for &Mm<M> {
    fn alloc(&self, node: Option<NodeId>, gfp: Gfp, order: usize, usage: Use) -> Option<Pfn> {
        match node {
            None => self.alloc_pages(gfp, order, usage),
            Some(node) => self.alloc_pages_node(node, gfp, order, usage),
        }
    }

    unsafe fn free(&self, pfn: Pfn, order: usize, usage: Use) {
        // SAFETY: as the caller promises.
        unsafe { self.free_pages(pfn, order, usage) };
    }

    fn frame(&self, pfn: Pfn) -> Option<&Frame> {
        self.frames().get(pfn)
    }

    fn address_of(&self, pfn: Pfn) -> *mut u8 {
        self.frames().address_of(pfn)
    }

    fn block_at(&self, address: usize) -> Option<(Pfn, usize, Use)> {
        let pfn = self.frames().pfn_of_address(address)?;
        let word = self.frames().get(pfn)?.word();
        match word.state() {
            State::Used(usage) if self.frames().address_of(pfn).addr() == address => {
                Some((pfn, word.order(), usage))
            }
            _ => None,
        }
    }

    fn total(&self) -> u64 {
        self.zones().map(crate::zone::Zone::managed).sum()
    }
}
