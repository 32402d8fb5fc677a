//! Counters of a cache and a CPU, by Linux's names; and of contention.

use core::sync::atomic::AtomicU64;

/// What is counted (`/sys/kernel/slab/<cache>/<name>`), in builds with statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[expect(
    missing_docs,
    reason = "Linux's names; docs/slab.md has a line for each"
)]
pub enum Stat {
    AllocFastpath,
    AllocSlowpath,
    FreeFastpath,
    FreeSlowpath,
    FreeRcuSheaf,
    FreeRcuSheafFail,
    FreeAddPartial,
    FreeRemovePartial,
    AllocSlab,
    FreeSlab,
    AllocNodeMismatch,
    OrderFallback,
    CmpxchgDoubleFail,
    SheafFlush,
    SheafRefill,
    SheafAlloc,
    SheafFree,
    BarnGet,
    BarnGetFail,
    BarnPut,
    BarnPutFail,
    SheafPrefillFast,
    SheafPrefillSlow,
    SheafPrefillOversize,
    SheafReturnFast,
    SheafReturnSlow,
    /// The local lock was taken when an allocation came (from an interrupt).
    AllocLockTaken,
    /// The same, when a free came.
    FreeLockTaken,
    /// A free of an object of another node.
    FreeRemote,
    /// A free that had to be deferred.
    FreeDeferred,
}

/// How many there are.
pub const STATS: usize = Stat::FreeDeferred as usize + 1;

/// How often a lock was taken, and how often it had to be waited for. Kept in all builds: the
/// count is next to the lock and is changed by who holds it.
#[derive(Debug, Default)]
pub struct Contention {
    /// Acquisitions.
    pub taken: AtomicU64,
    /// Those that found the lock held.
    pub contended: AtomicU64,
}
