//! Counters of the arrows in the state tables of `docs/slab.md`: a table entry that no test
//! ever takes is a claim that nothing has checked. Counted in builds that check locks; the
//! others have no code for it.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{KmemCache, Machine, Slabs};

macro_rules! arrows {
    ($($(#[doc = $doc:literal])+ $arrow:ident = $name:literal,)*) => {
        /// An arrow of a state table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Arrow {
            $($(#[doc = $doc])+ $arrow,)*
        }

        impl Arrow {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$arrow,)*];

            /// The name in `docs/slab.md` and in listings.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$arrow => $name,)*
                }
            }
        }
    };
}

arrows! {
    /// Main is empty and the spare is not: they change places.
    AllocSwap = "alloc.swap",
    /// Main is empty: exchanged for a full sheaf of the barn.
    AllocExchange = "alloc.exchange",
    /// Main is empty and the barn has nothing: main is refilled from slabs.
    AllocRefill = "alloc.refill",
    /// A CPU without main gets one.
    AllocFirstMain = "alloc.first_main",
    /// A CPU without main, and no memory for one: an object from a slab.
    AllocNoMain = "alloc.no_main",
    /// A CPU without main, and the object is to be a sheaf itself: from a slab.
    AllocForSheaf = "alloc.for_sheaf",
    /// The local lock was taken: an object from a slab.
    AllocLockTaken = "alloc.lock_taken",
    /// The object is of another node than was asked for, and goes back.
    AllocMismatch = "alloc.mismatch",

    /// Other nodes' partial slabs before a fresh one, by the ratio.
    SupplyDefrag = "supply.defrag",
    /// A fresh slab on the own node.
    SupplyFreshOwn = "supply.fresh_own",
    /// Other nodes' partial slabs, as the own node has no memory.
    SupplyOthers = "supply.others",
    /// A fresh slab on the own node, from its reserve or after reclaim.
    SupplyFreshReclaimed = "supply.fresh_reclaimed",
    /// A fresh slab on another node.
    SupplyFreshElsewhere = "supply.fresh_elsewhere",
    /// There is no memory.
    SupplyNone = "supply.none",

    /// Main is full and the spare has room: they change places.
    FreeSwap = "free.swap",
    /// An empty sheaf from the barn.
    FreeGetEmpty = "free.get_empty",
    /// Main becomes the spare, an empty sheaf main.
    FreeMainToSpare = "free.main_to_spare",
    /// A CPU without main gets one.
    FreeFirstMain = "free.first_main",
    /// Main is full, and so is the spare: exchanged for an empty sheaf of the barn.
    FreeExchange = "free.exchange",
    /// The barn has no empty sheaf: one is made.
    FreeAllocate = "free.allocate",
    /// The sheaf that was made is not needed any more.
    FreeFreshUnused = "free.fresh_unused",
    /// There is no memory for one: a sheaf is flushed.
    FreeFlushNoMemory = "free.flush_no_memory",
    /// The barn has no room: the spare is flushed.
    FreeFlushBarnFull = "free.flush_barn_full",
    /// The local lock was taken: the object goes to its slab.
    FreeLockTaken = "free.lock_taken",
    /// An object of another node goes to its slab.
    FreeRemote = "free.remote",
    /// An object of a cache that is going goes to its slab.
    FreeDying = "free.dying",
    /// The memory of a sheaf goes to its slab.
    FreeSheafMemory = "free.sheaf_memory",

    /// A full sheaf for a fresh empty one.
    BarnPutFull = "barn.put_full",
    /// An empty sheaf comes back from an exchange: there are too many.
    BarnTooManyEmpty = "barn.too_many_empty",
    /// A full sheaf is flushed: shrink, or the end of the cache.
    BarnEmptied = "barn.emptied",

    /// A sheaf of the cache's size is prefilled.
    PrefillOwn = "prefill.own",
    /// A larger one is.
    PrefillOversize = "prefill.oversize",
    /// A prefilled one is exchanged for a larger one.
    PrefillLarger = "prefill.larger",
    /// It goes back as a CPU's spare.
    ReturnSpare = "return.spare",
    /// It goes back to the barn.
    ReturnBarn = "return.barn",
    /// It goes back empty.
    ReturnFlushed = "return.flushed",

    /// `NoLock`: the local lock was taken when an allocation came.
    NolockAllocTaken = "nolock.alloc_taken",
    /// `NoLock`: the same, when a free came.
    NolockFreeTaken = "nolock.free_taken",
    /// A free is deferred.
    DeferredPush = "deferred.push",
    /// A deferred free is made.
    DeferredRun = "deferred.run",

    /// (Debug caches) an object of a fresh slab is free.
    DebugMade = "debug.made",
    /// free -> allocated.
    DebugAlloc = "debug.alloc",
    /// allocated -> free.
    DebugFree = "debug.free",
    /// free -> isolated: an allocation, or a free that checks the freelist, finds it damaged.
    DebugIsolated = "debug.isolated",
    /// free -> isolated: `validate` does.
    DebugIsolatedByValidate = "debug.isolated_by_validate",
    /// A state word was overwritten: it is what the freelist says.
    DebugPutRight = "debug.put_right",
    /// partial -> full: a slab's last free object goes.
    DebugSlabFull = "debug.slab_full",
    /// full -> partial.
    DebugSlabPartial = "debug.slab_partial",

    /// A CPU gives up a sheaf of a live cache.
    CpuDrained = "cpu.drained",
    /// A CPU's sheaves are in use when they are asked for.
    DrainBusy = "cpu.drain_busy",
    /// A sheaf of a CPU that is gone, or of a cache that is not used any more.
    CpuDead = "cpu.dead",

    /// made -> listed.
    SlabMade = "slab.made",
    /// A slab of the smallest order is made, for there is none of the other.
    SlabMadeSmaller = "slab.made_smaller",
    /// made -> gone: the list lock was taken, and may not be waited for.
    SlabMadeLost = "slab.made_lost",
    /// listed -> listed: a free without the list lock.
    SlabPush = "slab.push",
    /// listed -> listed: a free that took the list lock, and found it needless.
    SlabPushLocked = "slab.push_locked",
    /// full -> listed: the first free.
    SlabList = "slab.list",
    /// full -> listed: a free of all objects at once; an empty slab that is kept.
    SlabListEmpty = "slab.list_empty",
    /// full -> discarded: the same, and enough are kept.
    SlabEmptyAtOnce = "slab.empty_at_once",
    /// listed -> listed: empty, and kept.
    SlabKeepEmpty = "slab.keep_empty",
    /// listed -> discarded: empty, and enough are kept.
    SlabEmpty = "slab.empty",
    /// listed -> full: who refills needs all that is free.
    SlabTakeAll = "slab.take_all",
    /// listed -> listed, for the moment without free objects: who refills needs a part.
    SlabTakePart = "slab.take_part",
    /// listed -> listed: who refills meets that moment.
    SlabSkip = "slab.skip",
    /// listed -> listed: what was too much comes back, without the list lock.
    SlabRest = "slab.rest",
    /// The same, and others freed objects meanwhile: joined with theirs.
    SlabRestJoin = "slab.rest_join",
    /// full -> listed: the same, and the slab was unlisted meanwhile (or listed once more, when the lock is held).
    SlabRestList = "slab.rest_list",
    /// listed -> discarded: by a shrink.
    SlabShrunk = "slab.shrunk",
    /// discarded -> gone.
    SlabGone = "slab.gone",
    /// discarded -> waiting for a grace period.
    SlabWaits = "slab.waits",
    /// discarded -> waiting for an engine of RCU.
    SlabWaitsEarly = "slab.waits_early",
    /// waiting -> gone.
    SlabGoneByRcu = "slab.gone_by_rcu",
    /// The list lock was taken, and may not be waited for: nothing happens.
    SlabBusy = "slab.busy",
    /// A link was overwritten: the objects behind it are lost.
    SlabCut = "slab.cut",
}

/// A counter for each arrow.
#[derive(Debug)]
pub struct Arrows([AtomicU64; Arrow::ALL.len()]);

impl Arrows {
    /// All at 0.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Arrow::ALL.len()])
    }

    /// It is taken `count` times.
    #[inline]
    pub(crate) fn add(&self, arrow: Arrow, count: u64) {
        // Relaxed: a statistic.
        self.0[arrow as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// How often it was taken.
    pub fn count(&self, arrow: Arrow) -> u64 {
        self.0[arrow as usize].load(Ordering::Relaxed)
    }
}

impl Default for Arrows {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> KmemCache<M> {
    /// An arrow of the state tables is taken. Any context.
    #[inline(always)]
    pub(crate) fn arrow(&self, arrow: Arrow) {
        if M::CHECK_LOCKS {
            self.slabs().arrows.add(arrow, 1);
        }
    }
}

impl<M: Machine> Slabs<M> {
    /// Every arrow, with how often it was taken, in all caches; 0 in builds that do not count. Any context.
    pub fn arrows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let arrows = Arrow::ALL.iter();
        arrows.map(|arrow| (arrow.name(), self.arrows.count(*arrow)))
    }
}
