//! Counters of a cache and a CPU, by Linux's names; and of contention.

use core::sync::atomic::{AtomicU64, Ordering};

use platform::CpuId;

use super::{KmemCache, Machine};

macro_rules! stats {
    ($($(#[doc = $doc:literal])+ $stat:ident = $name:literal,)*) => {
        /// What is counted, in builds with statistics: `/sys/kernel/slab/<cache>/<name>`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Stat {
            $($(#[doc = $doc])+ $stat,)*
        }

        impl Stat {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$stat,)*];

            /// The name, which is Linux's, but for the last four.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$stat => $name,)*
                }
            }
        }
    };
}

stats! {
    /// Objects from sheaves.
    AllocFastpath = "alloc_fastpath",
    /// Allocations for which sheaves had to be changed, or were no use.
    AllocSlowpath = "alloc_slowpath",
    /// Objects into sheaves, without more ado.
    FreeFastpath = "free_fastpath",
    /// Frees for which sheaves had to be changed, or were no use.
    FreeSlowpath = "free_slowpath",
    /// Objects into an rcu_free sheaf.
    FreeRcuSheaf = "free_rcu_sheaf",
    /// Objects for which there was none.
    FreeRcuSheafFail = "free_rcu_sheaf_fail",
    /// Slabs put on a list of partial ones by a free.
    FreeAddPartial = "free_add_partial",
    /// Slabs taken off by a free.
    FreeRemovePartial = "free_remove_partial",
    /// Fresh slabs.
    AllocSlab = "alloc_slab",
    /// Slabs given back.
    FreeSlab = "free_slab",
    /// Objects of another node than was asked for.
    AllocNodeMismatch = "alloc_node_mismatch",
    /// Fresh slabs of the smallest order, for want of larger blocks.
    OrderFallback = "order_fallback",
    /// Exchanges of a freelist word that were made again.
    CmpxchgDoubleFail = "cmpxchg_double_fail",
    /// Objects flushed from sheaves to slabs.
    SheafFlush = "sheaf_flush",
    /// Objects taken from slabs for sheaves and bulk.
    SheafRefill = "sheaf_refill",
    /// Sheaves allocated.
    SheafAlloc = "sheaf_alloc",
    /// Sheaves freed.
    SheafFree = "sheaf_free",
    /// Full sheaves from the barn, for allocations.
    BarnGet = "barn_get",
    /// Times that it had none.
    BarnGetFail = "barn_get_fail",
    /// Full sheaves into the barn.
    BarnPut = "barn_put",
    /// Times that it had no room.
    BarnPutFail = "barn_put_fail",
    /// Prefilled sheaves from spare or barn.
    SheafPrefillFast = "sheaf_prefill_fast",
    /// Prefilled sheaves that had to be allocated.
    SheafPrefillSlow = "sheaf_prefill_slow",
    /// Prefilled sheaves larger than the cache's.
    SheafPrefillOversize = "sheaf_prefill_oversize",
    /// Prefilled sheaves that came back as a CPU's spare.
    SheafReturnFast = "sheaf_return_fast",
    /// Those that did not.
    SheafReturnSlow = "sheaf_return_slow",
    /// The local lock was taken when an allocation came.
    AllocLockTaken = "alloc_lock_taken",
    /// The local lock was taken when a free came.
    FreeLockTaken = "free_lock_taken",
    /// Frees of objects of another node.
    FreeRemote = "free_remote",
    /// Frees that were deferred.
    FreeDeferred = "free_deferred",
}

/// How many there are.
pub const STATS: usize = Stat::ALL.len();

/// How often a lock was taken, and how often it had to be waited for. Kept in all builds: the
/// count is next to the lock and is changed by who holds it.
#[derive(Debug, Default)]
pub struct Contention {
    /// Acquisitions.
    pub taken: AtomicU64,
    /// Those that found the lock held.
    pub contended: AtomicU64,
}

/// [`Contention`] at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Acquisitions.
    pub taken: u64,
    /// Those that found the lock held.
    pub contended: u64,
}

impl Waits {
    /// With those of `more`.
    fn and(self, more: &Contention) -> Self {
        // Relaxed: statistics.
        Self {
            taken: self.taken + more.taken.load(Ordering::Relaxed),
            contended: self.contended + more.contended.load(Ordering::Relaxed),
        }
    }
}

impl<M: Machine> KmemCache<M> {
    /// How often the locks of its barns, and those of its lists, were taken since it was made.
    /// Any context.
    pub fn contention(&self) -> (Waits, Waits) {
        let none = (Waits::default(), Waits::default());
        self.all_nodes().fold(none, |(barns, lists), node| {
            (
                barns.and(&node.barn.contention),
                lists.and(&node.contention),
            )
        })
    }

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
        return self.stats.on(cpu)[stat as usize].load(Ordering::Relaxed);
        #[cfg(not(feature = "slab_stats"))]
        {
            let _ = (stat, cpu);
            0
        }
    }

    /// From now on counts begin at 0 again. What is counted meanwhile is counted before or after. Task
    /// context.
    pub fn reset_stat(&self, stat: Stat) {
        #[cfg(feature = "slab_stats")]
        {
            use core::sync::atomic::Ordering::Relaxed;
            let online = M::online_cpus();
            // Each CPU its own: of others' additions one may be under way.
            M::call(online, &|| {
                self.stats.on(M::current_cpu())[stat as usize].store(0, Relaxed);
            });
            for cpu in M::possible_cpus().difference(online).iter() {
                self.stats.on(cpu)[stat as usize].store(0, Relaxed);
            }
        }
        #[cfg(not(feature = "slab_stats"))]
        let _ = stat;
    }
}
