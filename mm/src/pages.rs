//! Pages that free themselves: the safe way to have a block.

use core::{fmt, mem::ManuallyDrop, mem::MaybeUninit, ptr::NonNull};

use platform::NodeId;

use crate::{
    frame::{PAGE_SIZE, Pfn, Use},
    gfp::Gfp,
    machine::Machine,
    mm::Mm,
};

/// A block of pages. Dropping it frees it: not in NMI.
pub struct Pages<'m, M: Machine> {
    mm: &'m Mm<M>,
    pfn: Pfn,
    order: u8,
    usage: Use,
}

impl<'m, M: Machine> Pages<'m, M> {
    /// [`Mm::alloc_pages`] with an owner.
    #[inline]
    #[track_caller]
    pub fn alloc(mm: &'m Mm<M>, gfp: Gfp, order: usize, usage: Use) -> Option<Self> {
        mm.alloc_pages(gfp, order, usage).map(|pfn| Self {
            mm,
            pfn,
            order: order as u8,
            usage,
        })
    }

    /// [`Mm::alloc_pages_node`] with an owner.
    #[track_caller]
    pub fn alloc_node(
        mm: &'m Mm<M>,
        node: NodeId,
        gfp: Gfp,
        order: usize,
        usage: Use,
    ) -> Option<Self> {
        mm.alloc_pages_node(node, gfp, order, usage)
            .map(|pfn| Self {
                mm,
                pfn,
                order: order as u8,
                usage,
            })
    }

    /// Takes over a block.
    ///
    /// # Safety
    ///
    /// The block was allocated from `mm` with this order for this use, and is the caller's.
    pub unsafe fn from_raw(mm: &'m Mm<M>, pfn: Pfn, order: usize, usage: Use) -> Self {
        Self {
            mm,
            pfn,
            order: order as u8,
            usage,
        }
    }

    /// Gives up the owner; the block is the caller's to free.
    pub fn into_raw(self) -> Pfn {
        ManuallyDrop::new(self).pfn
    }

    /// The first frame.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// The block has `2^order` frames.
    pub fn order(&self) -> usize {
        usize::from(self.order)
    }

    /// The number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> usize {
        PAGE_SIZE << self.order
    }

    /// The first byte.
    pub fn as_ptr(&self) -> NonNull<u8> {
        // SAFETY: the direct map does not begin at address 0.
        unsafe { NonNull::new_unchecked(self.mm.frames().address_of(self.pfn)) }
    }

    /// The memory; what is in it is anything, unless zeros were asked for.
    pub fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the block is mapped in the direct map and ours alone.
        unsafe { core::slice::from_raw_parts_mut(self.as_ptr().as_ptr().cast(), self.len()) }
    }
}

impl<M: Machine> Drop for Pages<'_, M> {
    fn drop(&mut self) {
        // SAFETY: allocated so, ours, and not used after this.
        unsafe {
            self.mm
                .free_pages(self.pfn, usize::from(self.order), self.usage);
        }
    }
}

impl<M: Machine> fmt::Debug for Pages<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames from {} ({})",
            1 << self.order,
            self.pfn,
            self.usage.name()
        )
    }
}
