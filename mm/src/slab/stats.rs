//! Counters of a cache and a CPU, by Linux's names; and of contention.

use core::sync::atomic::AtomicU64;

use platform::CpuId;

use super::{KmemCache, Machine};

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

impl<M: Machine> KmemCache<M> {
    /// Counts. Nothing at all without the feature `slab_stats`. Any context.
    #[inline(always)]
    pub(crate) fn count(&self, stat: Stat) {
        self.count_many(stat, 1);
    }

    /// Counts `by` of them.
    #[inline(always)]
    pub(crate) fn count_many(&self, stat: Stat, by: usize) {
        #[cfg(feature = "slab_stats")]
        {
            let addr = self.stats.addr().0 + stat as usize * size_of::<AtomicU64>();
            // SAFETY: a word of this cache's statistics, which other CPUs only read.
            unsafe { M::percpu_add(platform::PerCpuAddr(addr), by as u64) };
        }
        #[cfg(not(feature = "slab_stats"))]
        let _ = (stat, by);
    }

    /// What was counted, on all CPUs; 0 without the feature `slab_stats`. Any context.
    pub fn stat(&self, stat: Stat) -> u64 {
        M::possible_cpus()
            .iter()
            .map(|cpu| self.stat_on(stat, cpu))
            .fold(0, u64::wrapping_add)
    }

    /// What was counted on one CPU. Any context.
    ///
    /// # Panics
    ///
    /// If `cpu` can never run.
    pub fn stat_on(&self, stat: Stat, cpu: CpuId) -> u64 {
        #[cfg(feature = "slab_stats")]
        // Relaxed: a statistic.
        return self.stats.on(cpu)[stat as usize].load(core::sync::atomic::Ordering::Relaxed);
        #[cfg(not(feature = "slab_stats"))]
        {
            let _ = (stat, cpu);
            0
        }
    }
}
