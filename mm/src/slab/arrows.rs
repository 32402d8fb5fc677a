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

    /// A CPU gets an rcu_free sheaf.
    RcuOpen = "rcu.open",
    /// It is full, and closed; a fresh one takes its place.
    RcuExchange = "rcu.exchange",
    /// It is full, and closed; there is no fresh one at hand.
    RcuCloseFull = "rcu.close_full",
    /// It is old, and closed.
    RcuCloseOld = "rcu.close_old",
    /// It is closed for a barrier.
    RcuCloseBarrier = "rcu.close_barrier",
    /// It is to be closed, and in use by what the call has interrupted.
    RcuCloseBusy = "rcu.close_busy",
    /// It is closed since its CPU has gone.
    RcuCloseDead = "rcu.close_dead",
    /// It is closed by who destroys the cache.
    RcuCloseDestroy = "rcu.close_destroy",
    /// An object for which there is no sheaf: no memory, or the cache has none.
    RcuNoSheaf = "rcu.no_sheaf",
    /// An object of another node than the CPU's own.
    RcuRemote = "rcu.remote",
    /// The local lock is taken.
    RcuLockTaken = "rcu.lock_taken",
    /// An object of a cache that is going.
    RcuDying = "rcu.dying",
    /// An object goes into a page of pointers.
    RcuPage = "rcu.page",
    /// A page of pointers is full, and closed.
    RcuClosePage = "rcu.close_page",
    /// Open pages and the open chain are old, and closed.
    RcuCloseLoose = "rcu.close_loose",
    /// No page: the object is linked by its head.
    RcuChain = "rcu.chain",
    /// Neither page nor head: the caller waits, and frees it.
    RcuSynchronize = "rcu.synchronize",
    /// `NoLock`: the object is put on a stack, to be queued soon.
    RcuDefer = "rcu.defer",
    /// It is queued.
    RcuDeferRun = "rcu.defer_run",
    /// A ripe sheaf is taken off its lane.
    RcuTakeSheaf = "rcu.take_sheaf",
    /// A ripe object is taken off its lane's pages and chains.
    RcuTakeLoose = "rcu.take_loose",
    /// Who destroys a cache, or a barrier, takes its own objects off.
    RcuTakeOwn = "rcu.take_own",
    /// A sheaf whose objects are free again goes full into the barn.
    RcuToBarn = "rcu.to_barn",
    /// The same, but the barn is full: it is flushed.
    RcuBarnFull = "rcu.barn_full",
    /// The same, but it was closed early: it is flushed.
    RcuFlushPartial = "rcu.flush_partial",
    /// The same, but the cache is going, or has hooks: its objects are freed one by one.
    RcuFreeEach = "rcu.free_each",
    /// The drainer queues the lane's callback, or who closes a batch does.
    LaneCall = "lane.call",
    /// The callback's grace period is over.
    LaneRipe = "lane.ripe",
    /// awake -> dozing: only open batches are left.
    LaneDoze = "lane.doze",
    /// awake -> idle.
    LaneIdle = "lane.idle",
    /// More bytes wait than should: the drainer is told.
    LaneUrge = "lane.urge",
    /// It makes an expedited grace period.
    LaneExpedite = "lane.expedite",
    /// Far more: who queues frees what is ripe, and waits.
    LaneHelp = "lane.help",
    /// A barrier, or who destroys a cache, waits for what others have taken.
    HandsWait = "hands.wait",

    /// dying -> lingering: the end of a cache is left to the background.
    LingerQueue = "linger.queue",
    /// dying, still: there is nobody in the background.
    LingerInPlace = "linger.in_place",
    /// Of those that linger, one at least has had boxes: all CPUs are called, once for all.
    LingerCall = "linger.call",
    /// One at least has something in flight: a grace period for all.
    LingerSynchronize = "linger.synchronize",
    /// The same, for slabs that wait.
    LingerSynchronizeSlabs = "linger.synchronize_slabs",
    /// lingering -> gone.
    LingerGone = "linger.gone",
    /// lingering -> zombie.
    LingerZombie = "linger.zombie",
    /// A freed object is in quarantine.
    QuarantineEnter = "quarantine.enter",
    /// It leaves, for others that were freed later.
    QuarantineLeave = "quarantine.leave",
    /// It leaves with all others of its cache.
    QuarantineFlush = "quarantine.flush",
    /// It leaves with all others of its CPU, or because the limit is lower.
    QuarantineDrain = "quarantine.drain",
    /// It was written to in quarantine.
    QuarantineWritten = "quarantine.written",
    /// It is freed once more while it is in quarantine.
    QuarantineDouble = "quarantine.double",
    /// It is larger than all that may be in quarantine.
    QuarantineTooLarge = "quarantine.too_large",
    /// The lock of the quarantine was taken.
    QuarantineBusy = "quarantine.busy",
    /// There was no page for the quarantine.
    QuarantineNoMemory = "quarantine.no_memory",

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
    /// discarded -> waiting, for the destroyer of the cache.
    SlabKept = "slab.kept",
    /// waiting for a grace period -> for the destroyer of the cache: it is over.
    SlabKeptRipe = "slab.kept_ripe",
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
    /// An arrow of the state tables is taken. Any context.
    #[inline(always)]
    pub(crate) fn arrow(&self, arrow: Arrow) {
        if M::CHECK_LOCKS {
            self.arrows.add(arrow, 1);
        }
    }

    /// Every arrow, with how often it was taken, in all caches; 0 in builds that do not count. Any context.
    pub fn arrows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let arrows = Arrow::ALL.iter();
        arrows.map(|arrow| (arrow.name(), self.arrows.count(*arrow)))
    }
}
