//! Slabs of a TYPESAFE_BY_RCU cache whose end has begun: the destroyer itself frees those that wait for a grace period, and waits
//! for those of this cache alone.
//!
//! | who gives an empty slab back | stage | then | counter |
//! |---|---|---|---|
//! | anybody | live | it waits with a callback of its own | `slab.waits` |
//! | a free that knows that the cache is dying, or the destroyer | open | it is *kept*, for the destroyer's next grace period | `slab.kept` |
//! | the same | closed: the destroyer has gone, or there is no engine | as live | `slab.waits` |
//!
//! | a slab's callback | stage | then | counter |
//! |---|---|---|---|
//! | its grace period is over | live | frees it, counted in `running` meanwhile | `slab.gone_by_rcu` |
//! | the same | open | it is *ripe*: the destroyer frees it | `slab.kept_ripe` |
//! | the same | closed | frees it; nobody waits | `slab.gone_by_rcu` |
//!
//! All of that is decided under one lock of the cache, which only such caches ever take. So whoever finds, with the lock, that nothing is
//! kept, nothing ripe, no callback running, and no slab waiting, knows that all slabs have gone: that is when the destroyer closes. A
//! callback that was counted as running has the lock once more, as its last access; until then the destroyer keeps the cache. All
//! others keep it by their slab.

use platform::{
    lock::{IrqSpinGuard, IrqSpinLock},
    lock_class,
    sync::Ordering,
};

use super::{Flags, KmemCache, Machine, Slab, Slabs, arrows::Arrow, list::SlabList};
use crate::kvfree_rcu::{InFlight, Wait};

lock_class! {
    /// Slabs that wait for who destroys their cache.
    pub struct KeptLock = ("slab kept", 84);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Live,
    Open,
    Closed,
}

/// See the module.
struct State {
    stage: Stage,
    /// Callbacks that free their slab.
    running: u32,
    /// Discarded; there was no grace period since.
    kept: SlabList,
    /// The destroyer has asked for their grace period.
    due: SlabList,
    /// Their own grace period is over.
    ripe: SlabList,
}

/// What a cache has of them.
pub(crate) struct Kept<M: Machine>(IrqSpinLock<State, M, KeptLock>);

impl<M: Machine> Kept<M> {
    /// Those of a live cache: none.
    pub fn new() -> Self {
        Self(IrqSpinLock::new(State {
            stage: Stage::Live,
            running: 0,
            kept: SlabList::new(),
            due: SlabList::new(),
            ripe: SlabList::new(),
        }))
    }

    /// The cache is dying, and its destroyer will come.
    pub fn open(&self) {
        self.0.lock().stage = Stage::Open;
    }
}

/// What a callback is to do with its slab.
pub(super) enum Turn {
    /// Nothing: it is the destroyer's.
    Kept,
    /// Free it, and say [so](KmemCache::callback_ran).
    Counted,
    /// Free it.
    Late,
}

/// How often a destroyer that waits for others' callbacks has their grace period begin, in nanoseconds. (They may have no
/// name when it first does.)
const HURRY_NS: u64 = 1_000_000;

impl<M: Machine> KmemCache<M> {
    fn kept(&self) -> IrqSpinGuard<'_, State, M, KeptLock> {
        self.kept.0.lock()
    }

    /// Leaves a slab, which was discarded and is counted as waiting, to the destroyer. `false`: there is none.
    pub(super) fn keep(&self, slab: Slab<M>) -> bool {
        let mut state = self.kept();
        if state.stage != Stage::Open {
            return false;
        }
        self.arrow(Arrow::SlabKept);
        state.kept.push_back(slab);
        drop(state);
        // Who frees to a dying cache holds it.
        self.slabs().kvfree_rcu.rested.wake_all();
        true
    }

    /// The callback of a slab, after its grace period.
    pub(super) fn callback_runs(&self, slab: Slab<M>) -> Turn {
        let mut state = self.kept();
        match state.stage {
            Stage::Live => {
                state.running += 1;
                Turn::Counted
            }
            Stage::Open => {
                self.arrow(Arrow::SlabKeptRipe);
                // What keeps the cache is the slab, no longer than the lock is held.
                let slabs = self.slabs;
                state.ripe.push_back(slab);
                drop(state);
                // SAFETY: the allocator outlives its caches.
                unsafe { slabs.as_ref() }.kvfree_rcu.rested.wake_all();
                Turn::Kept
            }
            Stage::Closed => Turn::Late,
        }
    }

    /// One that was counted is through with its slab.
    ///
    /// # Safety
    ///
    /// [`callback_runs`](Self::callback_runs) gave `Counted`. The cache may be gone after this.
    pub(super) unsafe fn callback_ran(&self) {
        let slabs = self.slabs;
        let mut state = self.kept();
        state.running -= 1;
        let awaited = state.stage == Stage::Open && state.running == 0;
        drop(state);
        if awaited {
            // SAFETY: the allocator outlives its caches.
            unsafe { slabs.as_ref() }.kvfree_rcu.rested.wake_all();
        }
    }

    /// What is kept is due with the next grace period. `false`: nothing is.
    pub(super) fn make_due(&self) -> bool {
        let mut state = self.kept();
        let mut kept = core::mem::take(&mut state.kept);
        state.due.prepend(&mut kept);
        !state.due.is_empty()
    }

    /// Frees what is ripe; and what is due, after its grace period. How many slabs. May sleep.
    ///
    /// # Safety
    ///
    /// The caller is the destroyer. If `due`, a grace period has passed since [`make_due`](Self::make_due).
    pub(super) unsafe fn free_kept(&self, due: bool) -> u64 {
        let map = *self.slabs().mm().frames();
        let mut freed = 0;
        for is_due in [false, true] {
            let mut list = match is_due {
                false => core::mem::take(&mut self.kept().ripe),
                true if due => core::mem::take(&mut self.kept().due),
                true => break,
            };
            while let Some(slab) = list.pop_front::<M>(map) {
                // SAFETY: a grace period has passed since it was discarded; the destroyer holds the cache.
                unsafe { self.free_waited(slab) };
                freed += 1;
            }
        }
        freed
    }

    fn waiting(&self) -> u64 {
        // Acquire pairs with the Release of who takes one off.
        let of_node = |node: &super::node::Node<M>| node.waiting.load(Ordering::Acquire);
        self.all_nodes().map(of_node).sum()
    }

    /// Whether there is something for the destroyer to do: a slab of its own, or nothing any more to wait for.
    fn has_news(&self) -> bool {
        let state = self.kept();
        !state.kept.is_empty()
            || !state.ripe.is_empty()
            || state.running == 0 && self.waiting() == 0
    }

    /// The destroyer goes, unless it is needed yet.
    fn close_kept(&self) -> bool {
        let mut state = self.kept();
        if state.running > 0 || self.waiting() > 0 {
            return false;
        }
        state.stage = Stage::Closed;
        true
    }
}

impl<M: Machine> Slabs<M> {
    /// Frees slabs of a dying cache after a grace period of its own, and waits for those that wait for another one.
    ///
    /// # Safety
    ///
    /// The caller is the destroyer.
    pub(super) unsafe fn end_slabs(&self, cache: &KmemCache<M>, wait: Wait, did: &mut InFlight) {
        if !cache.flags.contains(Flags::TYPESAFE_BY_RCU) {
            return;
        }
        let Some(rcu) = self.rcu() else {
            return self.leave_slabs(cache);
        };
        loop {
            let due = cache.make_due();
            if due {
                did.synchronize(rcu, wait);
            }
            // SAFETY: a grace period has passed.
            did.slabs += unsafe { cache.free_kept(due) };
            if cache.close_kept() {
                return;
            }
            if cache.has_news() {
                continue;
            }
            let start = M::now_ns();
            did.slab_waits += 1;
            loop {
                rcu.hurry();
                let deadline = M::now_ns() + HURRY_NS;
                let rested = &self.kvfree_rcu.rested;
                if rested.wait_until_timeout(|| cache.has_news(), deadline) {
                    break;
                }
            }
            did.hands_ns += M::now_ns() - start;
        }
    }

    /// Without an engine: slabs wait for one, each by itself.
    fn leave_slabs(&self, cache: &KmemCache<M>) {
        let mut kept = {
            let mut state = cache.kept();
            state.stage = Stage::Closed;
            core::mem::take(&mut state.kept)
        };
        while let Some(slab) = kept.pop_front::<M>(*self.mm().frames()) {
            cache.discard_by_rcu(slab);
        }
    }
}
