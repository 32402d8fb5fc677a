//! What `mm` asks of a machine beyond [`Platform`]: where memory appears, and mappings for
//! [`vmalloc`](crate::vmalloc).

use core::{fmt, ops::Range};

use platform::{NodeId, Platform};

use crate::{frame::Pfn, report::Report};

/// Where memory appears in the address space. In the kernel a type without a value, whose
/// answers are constants; on the host a reference to the machine's memory.
pub trait Layout: Copy + Send + Sync + fmt::Debug + 'static {
    /// Where physical address 0 appears. All memory that the allocator hands out appears in
    /// one piece from here on.
    fn direct_map(self) -> usize;
    /// Where the descriptor of frame 0 is; those of all frames follow.
    fn frame_map(self) -> usize;
    /// Addresses for vmalloc; whole pages.
    fn vmalloc(self) -> Range<usize>;
}

/// What mapped pages may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only, never executed.
    Read,
    /// Read and written, never executed.
    ReadWrite,
    /// Executed and read, never written.
    Execute,
}

/// No memory for page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTables;

impl fmt::Display for NoTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for page tables")
    }
}

impl core::error::Error for NoTables {}

/// A machine with memory.
///
/// # Safety
///
/// `mm` relies on: what [`map`](Self::map) mapped is readable (and writable, if asked) at its
/// address on every CPU until [`unmap`](Self::unmap); after [`flush`](Self::flush) no CPU
/// holds a translation that was unmapped before the call.
pub unsafe trait Machine: Platform {
    /// Where memory appears.
    type Layout: Layout;

    /// Maps frames to adjacent pages from `virt` on. Task context; may allocate page tables
    /// (with the flags `KERNEL`). After an error nothing of it is mapped.
    ///
    /// # Errors
    ///
    /// [`NoTables`].
    ///
    /// # Safety
    ///
    /// The pages lie in [`Layout::vmalloc`], are not mapped, belong to the caller, and no CPU
    /// has an old translation of them; the frames are the caller's to show.
    unsafe fn map(
        layout: Self::Layout,
        virt: usize,
        frames: &mut dyn Iterator<Item = Pfn>,
        access: Access,
    ) -> Result<(), NoTables>;

    /// Removes what [`map`](Self::map) mapped; CPUs may still hold translations until
    /// [`flush`](Self::flush). Task context.
    ///
    /// # Safety
    ///
    /// The pages were mapped by `map`, and nobody uses them any more.
    unsafe fn unmap(layout: Self::Layout, virt: usize, pages: usize);

    /// Drops translations of all pages in `pages` on every CPU before it returns. Task
    /// context, no spinning lock held.
    fn flush(layout: Self::Layout, pages: Range<usize>);

    /// Return addresses of the callers, innermost first; how many. Any context.
    fn backtrace(into: &mut [usize]) -> usize;

    /// Something is wrong with the use of memory; the machine says so. Any context.
    fn memory_report(report: &Report<'_>);

    /// A number for the thread that runs this, for reports. Any context.
    fn thread_number() -> u32;

    /// The node whose memory is nearest for the CPU that runs this is computed from this.
    fn node_here() -> NodeId {
        Self::node_of(Self::current_cpu())
    }
}
