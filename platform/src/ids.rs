//! Numbers of CPUs and memory nodes.

use core::fmt;

/// The most CPUs the kernel runs on: one bit each in a [`CpuMask`](crate::CpuMask).
pub const MAX_CPUS: usize = 64;

/// The most memory nodes the kernel tells apart.
pub const MAX_NODES: usize = 8;

/// The kernel's number of a CPU: dense, from 0 (the boot CPU).
///
/// It is not the APIC id, which may have gaps.
///
/// # Invariants
/// The number is below [`MAX_CPUS`], so indexing an array of that length with
/// it cannot fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct CpuId(u32);

impl CpuId {
    /// The CPU that booted the machine.
    pub const BOOT: CpuId = CpuId(0);

    /// The CPU with number `number`, if it is below [`MAX_CPUS`].
    #[inline]
    pub const fn new(number: u32) -> Option<CpuId> {
        // INVARIANT: checked here, the only constructor.
        if (number as usize) < MAX_CPUS {
            Some(CpuId(number))
        } else {
            None
        }
    }

    /// The CPU with index `index`, if it is below [`MAX_CPUS`].
    #[inline]
    pub const fn from_index(index: usize) -> Option<CpuId> {
        if index < MAX_CPUS {
            Some(CpuId(index as u32))
        } else {
            None
        }
    }

    /// The CPU with number `number`, unchecked.
    ///
    /// # Safety
    ///
    /// `number` must be below [`MAX_CPUS`].
    #[inline(always)]
    pub const unsafe fn new_unchecked(number: u32) -> CpuId {
        debug_assert!((number as usize) < MAX_CPUS);
        // INVARIANT: as the caller promises.
        CpuId(number)
    }

    /// The number, as kept in registers and messages.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The number as an array index, below [`MAX_CPUS`].
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu{}", self.0)
    }
}

/// The kernel's number of a memory node: dense, from 0.
///
/// It is not the firmware's proximity domain, which may have gaps.
///
/// # Invariants
/// The number is below [`MAX_NODES`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct NodeId(u8);

impl NodeId {
    /// Node 0, which every machine has.
    pub const FIRST: NodeId = NodeId(0);

    /// The node with number `number`, if it is below [`MAX_NODES`].
    #[inline]
    pub const fn new(number: u32) -> Option<NodeId> {
        // INVARIANT: checked here and in `from_index`, the only constructors.
        if (number as usize) < MAX_NODES {
            Some(NodeId(number as u8))
        } else {
            None
        }
    }

    /// The node with index `index`, if it is below [`MAX_NODES`].
    #[inline]
    pub const fn from_index(index: usize) -> Option<NodeId> {
        if index < MAX_NODES {
            Some(NodeId(index as u8))
        } else {
            None
        }
    }

    /// The number, as printed in messages.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// The number as an array index, below [`MAX_NODES`].
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node{}", self.0)
    }
}
