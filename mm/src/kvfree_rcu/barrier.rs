//! Waiting until what was given to `kfree_rcu` is free: of all caches, of one, of one that is
//! destroyed.
//!
//! | who | closes | waits for a grace period | takes off the lanes | waits for hands |
//! |---|---|---|---|---|
//! | [`Slabs::kvfree_rcu_barrier`] | all open batches, each CPU its own | an expedited one | all that is ripe, everywhere | of every lane, of the phase that ends when all is taken off |
//! | [`Slabs::kvfree_rcu_barrier_on_cache`] | the cache's open sheaves, each CPU its own | an expedited one, if the cookies of what waits are not done | the cache's, what is ripe | of the cache, of the phase that ends then |
//! | the end of a cache | the cache's open sheaves, from where it runs | the same | all of the cache's | of the cache, all |
//!
//! # Why this is exact
//!
//! Every object that was given to `kfree_rcu` and does not rest is in one of: the open sheaf of a CPU; what a lane has of the cache
//! ([`Part::objects`](super::part::Part::objects)); the [hands](super::hands) of the cache; the stack of
//! deferred calls, counted in the cache. It moves from the first to the second in one step with the lane's lock, and from the second to the
//! third so that it is counted in both for a moment. So who looks at them in this order, after the last call of `kfree_rcu`,
//! and finds nothing, knows that all rests; he has written nothing, and asked nobody.
//!
//! All counts are of one cache and one CPU, but for the hands, which are of one cache and changed once for each sheaf, not for
//! each object. So nothing here costs the callers of `kfree_rcu` a shared line.

use platform::{
    CpuId, CpuMask, lock_class,
    sync::{AtomicU64, Ordering},
    wait::Mutex,
};
use rcu::Rcu;

use super::lane::Then;
use crate::slab::{KmemCache, Machine, Slabs, arrows::Arrow};

lock_class! {
    /// Whoever makes a barrier: phases of hands change one at a time.
    pub struct BarrierLock = ("kfree_rcu barrier", 2);
}

/// The mutex of barriers.
pub(crate) type BarrierMutex<M> = Mutex<(), M, BarrierLock>;

/// How a destroyer waits for readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Wait {
    /// By an expedited grace period: other CPUs that are in a section are interrupted.
    #[default]
    Expedited,
    /// By a normal one.
    Normal,
}

/// What a destroyer did because objects of its cache, or slabs, were in flight. All zero: nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct InFlight {
    /// Objects that waited for a grace period, and were freed by the destroyer itself.
    pub freed: u64,
    /// Grace periods that it asked for.
    pub requested: u32,
    /// Times that it found that the cookies of all that was in flight were done.
    pub passed: u32,
    /// Times that it waited for objects that others had taken to free them.
    pub hands: u32,
    /// Times that it waited for deferred frees.
    pub deferred: u32,
    /// Calls to other CPUs.
    pub calls: u32,
    /// Works and wake-ups that it had others do.
    pub works: u32,
    /// Slabs of a TYPESAFE_BY_RCU cache that it freed after their grace period.
    pub slabs: u64,
    /// Times that it waited for such slabs whose grace period others had asked for.
    pub slab_waits: u32,
    /// Nanoseconds that it waited for grace periods that it had asked for.
    pub grace_ns: u64,
    /// Nanoseconds that it waited for what others had taken.
    pub hands_ns: u64,
}

impl InFlight {
    /// Waits for a grace period that is asked for.
    pub(crate) fn synchronize<M: Machine>(&mut self, rcu: &Rcu<M>, wait: Wait) {
        let start = M::now_ns();
        self.requested += 1;
        match wait {
            Wait::Expedited => rcu.synchronize_expedited(),
            Wait::Normal => rcu.synchronize(),
        }
        self.grace_ns += M::now_ns() - start;
    }
}

impl<M: Machine> Slabs<M> {
    /// Waits until everything is free that was given to `kfree_rcu` before, whichever road it took. Task
    /// context, may sleep, not in a section, nor from a destructor.
    pub fn kvfree_rcu_barrier(&self) {
        // What has been left to their destroyer is closed by nobody else.
        self.sync_lingering();
        self.sync_deferred_rcu();
        let _barrier = self.kvfree_rcu.barrier.lock();
        self.close_all_open(true);
        let mut any = false;
        for lane in self.kvfree_rcu.lanes() {
            let mut state = lane.state.lock();
            state.loose.close_all(true, || lane.name());
            any |= !state.is_empty();
        }
        if any && let Some(rcu) = self.rcu() {
            rcu.synchronize_expedited();
        }
        for lane in self.kvfree_rcu.lanes() {
            lane.drain();
        }
        // Now all that was queued before is off the lanes, so who has some of it counted it in a phase that ends here.
        let phases = self.kvfree_rcu.flip_lanes();
        self.pass_lanes();
        for (lane, phase) in self.kvfree_rcu.lanes().iter().zip(phases) {
            lane.hands.wait(phase, &self.kvfree_rcu.rested);
        }
    }

    /// Has every CPU close its open sheaves of all caches; with `wait` also those that go. Task context with interrupts on.
    pub(super) fn close_all_open(&self, wait: bool) {
        let has_open = |cpu| {
            let mut any = false;
            let mut state = self.kvfree_rcu.lane(cpu).state.lock();
            state
                .for_each_part(|part, locked| any |= part.open_since() != 0 && !locked.is_barred());
            any
        };
        self.close_where(wait, has_open, |here| {
            self.kvfree_rcu
                .lane(here)
                .close_open(Arrow::RcuCloseBarrier, u64::MAX)
        });
    }

    /// Calls `close` on each CPU that has something open, again where it gives `false`. What is open on a CPU that has gone
    /// is closed when its sheaves are taken, soon ([`flush_offline`](Slabs::flush_offline)): with `wait` that is waited for.
    fn close_where(
        &self,
        wait: bool,
        has_open: impl Fn(CpuId) -> bool,
        close: impl Fn(CpuId) -> bool + Sync,
    ) {
        let all = M::possible_cpus().iter().filter(|cpu| has_open(*cpu));
        let mut left = all.fold(CpuMask::EMPTY, CpuMask::with);
        while !left.is_empty() {
            let done = AtomicU64::new(0);
            M::call(left, &|| {
                let here = M::current_cpu();
                if close(here) {
                    // Relaxed: the call orders it.
                    done.fetch_or(CpuMask::only(here).bits(), Ordering::Relaxed);
                }
            });
            left = CpuMask::from_bits(left.bits() & !done.load(Ordering::Relaxed));
            let is_away = |cpu| !M::online_cpus().contains(cpu);
            let goes_on = || left.iter().any(|cpu| !is_away(cpu) || !has_open(cpu));
            if wait && !left.is_empty() {
                self.kvfree_rcu.rested.wait_until(goes_on);
            }
            let still = left
                .iter()
                .filter(|cpu| !is_away(*cpu) || wait && has_open(*cpu));
            left = still.fold(CpuMask::EMPTY, CpuMask::with);
        }
    }

    /// Waits until every object of `cache` is free that was given to `kfree_rcu` before; for no others, and not at all if
    /// there are none. Of a merged cache those of all its names count. Task context, may sleep, not in a section, nor from a destructor.
    pub fn kvfree_rcu_barrier_on_cache(&self, cache: &KmemCache<M>) {
        self.sync_deferred(cache);
        if !cache.has_in_flight() {
            return;
        }
        let _barrier = self.kvfree_rcu.barrier.lock();
        let has_open = |cpu| cache.part(cpu).open_since() != 0;
        self.close_where(true, has_open, |here| {
            let lane = self.kvfree_rcu.lane(here);
            match cache.close_rcu_free(lane, Arrow::RcuCloseBarrier) {
                Some(then) => {
                    lane.follow(then);
                    true
                }
                None => {
                    cache.arrow(Arrow::RcuCloseBusy);
                    false
                }
            }
        });
        self.free_ripe_of(cache);
        if cache.parts().any(|(_, part)| part.objects() > 0) {
            self.close_loose_of(cache);
            if let Some(rcu) = self.rcu() {
                rcu.synchronize_expedited();
            }
            self.free_ripe_of(cache);
        }
        // As above.
        let phase = cache.hands.flip();
        self.pass_lanes();
        cache.hands.wait(phase, &self.kvfree_rcu.rested);
    }

    /// Takes every lane's lock once: who takes something off a lane after that sees that phases have changed. So
    /// nobody counts in a phase that has ended while it is waited for, nor when it begins again.
    fn pass_lanes(&self) {
        for lane in self.kvfree_rcu.lanes() {
            drop(lane.state.lock());
        }
    }

    /// Frees all objects of a dying cache that were given to `kfree_rcu`, after their grace period,
    /// and waits for those that others have taken; notes what it did. Task context, may sleep.
    ///
    /// Without an engine of RCU there is nothing to wait for: they stay on the lanes, count as in
    /// use, and are freed when there is one.
    ///
    /// # Safety
    ///
    /// No call of `kfree_rcu` for this cache is under way, nor will one begin that does not know that the cache is dying;
    /// the caller is its only destroyer.
    pub(crate) unsafe fn end_in_flight(
        &self,
        cache: &KmemCache<M>,
        wait: Wait,
        did: &mut InFlight,
    ) {
        loop {
            let (waited, any) = self.bar_open(cache, did);
            if any {
                // SAFETY: as the caller promises.
                unsafe { self.end_lanes(cache, wait, did) };
                if self.rcu().is_none() {
                    break;
                }
            } else if !waited {
                break;
            }
        }
        for (cpu, part) in cache.parts() {
            // Nothing is on it; somebody may be about to see that.
            if part.is_linked() {
                let mut state = self.kvfree_rcu.lane(cpu).state.lock();
                // SAFETY: with the lock, and no other is there.
                state.relink(part, &mut unsafe { part.locked() });
            }
        }
    }

    /// Gives all that is in flight of a dying cache a cookie, and frees what is ripe: the first half of
    /// [`end_in_flight`](Self::end_in_flight), which comes next and finds all cookies done, if a grace period was waited for in between.
    /// `false`: that is not needed. Task context, may sleep.
    ///
    /// # Safety
    ///
    /// As for [`end_in_flight`](Self::end_in_flight).
    pub(crate) unsafe fn close_in_flight(&self, cache: &KmemCache<M>, did: &mut InFlight) -> bool {
        // SAFETY: as the caller promises.
        self.bar_open(cache, did).1 && unsafe { self.close_lanes(cache, did) }
    }

    /// Waits for deferred calls, and for hands; before that, sees to it that nobody but the destroyer closes open sheaves.
    /// Whether hands were waited for, and whether something is on the lanes.
    fn bar_open(&self, cache: &KmemCache<M>, did: &mut InFlight) -> (bool, bool) {
        if self.sync_deferred(cache) {
            did.deferred += 1;
        }
        let (mut any, mut barred) = (false, false);
        for (cpu, part) in cache.parts() {
            // From here on nobody but the destroyer closes its open sheaf.
            if part.open_since() != 0 {
                let _state = self.kvfree_rcu.lane(cpu).state.lock();
                // SAFETY: with the lock, and no other is there.
                unsafe { part.locked() }.bar();
                barred = true;
            }
            any |= barred || part.objects() > 0;
        }
        if barred {
            // A barrier may be waiting for such a sheaf of a CPU that has gone.
            self.kvfree_rcu.rested.wake_all();
        }
        let waits = cache.hands.any();
        if waits {
            let start = M::now_ns();
            cache.arrow(Arrow::HandsWait);
            did.hands += 1;
            cache.hands.wait_all(&self.kvfree_rcu.rested);
            did.hands_ns += M::now_ns() - start;
        }
        (waits, any)
    }

    /// Ends what is on the lanes.
    ///
    /// # Safety
    ///
    /// As for [`end_in_flight`](Self::end_in_flight); open sheaves are barred, and nobody has the local locks.
    unsafe fn end_lanes(&self, cache: &KmemCache<M>, wait: Wait, did: &mut InFlight) {
        // SAFETY: as the caller promises.
        if !unsafe { self.close_lanes(cache, did) } {
            did.passed += 1;
            return;
        }
        if let Some(rcu) = self.rcu() {
            did.synchronize(rcu, wait);
        }
        did.freed += self.free_ripe_of(cache);
    }

    /// Closes all that is open, and frees what is ripe. Whether something is left, which has a cookie then.
    ///
    /// # Safety
    ///
    /// As for [`end_lanes`](Self::end_lanes).
    unsafe fn close_lanes(&self, cache: &KmemCache<M>, did: &mut InFlight) -> bool {
        for (cpu, part) in cache.parts() {
            if part.open_since() != 0
                // SAFETY: nobody uses the sheaves any more.
                && let Some(mut sheaves) = unsafe { cache.cpus.on(cpu).sheaves.steal() }
            {
                // Nobody need come for it: this does. So the lane stays in its stage, as the part is barred: else it would be in
                // stage *called*, and nobody would have queued the callback.
                let lane = self.kvfree_rcu.lane(cpu);
                let then = cache.close_stolen(lane, &mut sheaves, Arrow::RcuCloseDestroy);
                debug_assert_eq!(then, Then::Nothing, "the part is barred");
            }
        }
        did.freed += self.free_ripe_of(cache);
        if cache.parts().all(|(_, part)| part.objects() == 0) {
            return false;
        }
        self.close_loose_of(cache);
        true
    }

    /// Frees what is ripe of a cache, on all lanes: how many objects.
    fn free_ripe_of(&self, cache: &KmemCache<M>) -> u64 {
        let mut objects = 0;
        for (cpu, part) in cache.parts() {
            let lane = self.kvfree_rcu.lane(cpu);
            while part.objects() > 0
                && let Some(hand) = lane.take_own(part)
            {
                objects += hand.objects();
                lane.free(hand);
            }
        }
        objects
    }

    /// Closes pages and chains that have objects of a cache. (Others in them get a cookie a little
    /// earlier, and wait no longer for it.)
    fn close_loose_of(&self, cache: &KmemCache<M>) {
        for (cpu, part) in cache.parts() {
            if part.objects() > 0 {
                let lane = self.kvfree_rcu.lane(cpu);
                let mut state = lane.state.lock();
                // SAFETY: with the lock, and no other is there.
                if unsafe { part.locked() }.loose_objects() > 0 {
                    state.loose.close_all(true, || lane.name());
                }
            }
        }
    }
}
