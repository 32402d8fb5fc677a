//! What a cache has of each CPU: its sheaves, under a local try-lock.

use core::ptr::NonNull;

use platform::{NodeId, lock::LocalLock, lock_class};

use super::{Machine, sheaf::Sheaf};

lock_class! {
    /// A CPU's sheaves of a cache: a local lock, so only ever tried.
    pub struct SheavesLock = ("slab sheaves", 81);
}

/// A CPU's sheaves.
#[derive(Debug)]
pub(crate) struct CpuSheaves {
    /// Never absent: the [permanent empty one](super::Slabs) where the CPU has none.
    pub main: NonNull<Sheaf>,
    /// Full or empty.
    pub spare: Option<NonNull<Sheaf>>,
    /// Objects that wait for a grace period gather here.
    pub rcu_free: Option<NonNull<Sheaf>>,
}

// SAFETY: sheaves have one owner, which is who has the lock.
unsafe impl Send for CpuSheaves {}

/// What each CPU has.
pub(crate) struct CpuSlab<M: Machine> {
    pub sheaves: LocalLock<CpuSheaves, M, SheavesLock>,
    /// The zones of the node whose memory is the CPU's own, as [`zone_pair`] of a frame says.
    pub home: u32,
}

impl<M: Machine> CpuSlab<M> {
    /// That of a CPU whose own memory is that of `home` ([`Mm::nearest_memory`](crate::Mm::nearest_memory)
    /// of its node): without sheaves.
    pub fn new(home: NodeId) -> Self {
        let sheaves = CpuSheaves {
            main: Sheaf::nothing(),
            spare: None,
            rcu_free: None,
        };
        Self {
            sheaves: LocalLock::new(sheaves),
            home: home.index() as u32,
        }
    }
}

/// Which node a frame is of, for comparison with [`CpuSlab::home`].
#[inline(always)]
pub(crate) fn zone_pair(frame: &crate::Frame) -> u32 {
    // Each node has two zones, with adjacent numbers.
    frame.word().bits() >> 17
}
