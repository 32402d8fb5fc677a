//! How an allocation may go about getting memory.

use core::fmt;

bitflags::bitflags! {
    /// What an allocation may do and what it wants, as Linux's `GFP` flags.
    ///
    /// | context | flags |
    /// |---|---|
    /// | a thread that may sleep | [`KERNEL`](Self::KERNEL) |
    /// | an interrupt, a spin lock held | [`ATOMIC`](Self::ATOMIC), or [`NOWAIT`](Self::NOWAIT) if there is a way out |
    /// | anywhere, NMI too, with any lock held | [`NOLOCK`](Self::NOLOCK) |
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Gfp: u32 {
        /// May sleep to reclaim memory: shrinkers are called.
        const RECLAIM = 1 << 0;
        /// May use what is kept below the *min* watermark for those who cannot wait.
        const HIGH = 1 << 1;
        /// The memory is zeroed.
        const ZERO = 1 << 2;
        /// From the node asked for, or not at all.
        const THISNODE = 1 << 3;
        /// No report when there is no memory.
        const NOWARN = 1 << 4;
        /// Never waits for a lock, so any context will do. Fails easily; never reports.
        const NOLOCK = 1 << 5;
        /// From below 4 GiB.
        const DMA32 = 1 << 6;
        /// For a sheaf of a cache: so that nothing recurses, the allocation makes no sheaf
        /// itself. The page allocator takes no notice of it.
        const NO_SHEAF = 1 << 7;

        /// For threads that may sleep.
        const KERNEL = Self::RECLAIM.bits();
        /// For those who may not sleep and have no other way.
        const ATOMIC = Self::HIGH.bits();
        /// For those who may not sleep and can do without; no report.
        const NOWAIT = Self::NOWARN.bits();
    }
}

impl fmt::Display for Gfp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bitflags::parser::to_writer(self, f)
    }
}
