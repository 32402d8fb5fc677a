//! The drainers: a thread for each CPU, which frees what is ripe on its lane, closes what is open for too long, and sees
//! to it that somebody comes again.

use core::ptr::NonNull;

use platform::{CpuId, Preempt, Priority, Spawn, SpawnError, sync::Ordering};

use super::{
    hands::Ticket,
    lane::{Lane, Stage, Then},
};
use crate::slab::{KmemCache, Machine, Slabs, arrows::Arrow};

/// How long a batch may be open, in nanoseconds.
pub const OPEN_NS: u64 = 10_000_000;

/// After which time a drainer looks again, at the least, unless it is woken.
const LOOK_NS: u64 = 1_000_000;

/// When a drainer looks again.
enum Next {
    /// When it is woken.
    Woken,
    /// Then at the latest.
    At(u64),
}

impl<M: Machine> Slabs<M> {
    /// Makes sure that a CPU has its drainer. Task context, may sleep.
    ///
    /// # Errors
    ///
    /// [`SpawnError`].
    pub fn start_drainer(&self, cpu: CpuId) -> Result<(), SpawnError> {
        self.start_lingering();
        let lane = self.kvfree_rcu.lane(cpu);
        if lane.thread.lock().is_some() {
            return Ok(());
        }
        let spawn = Spawn {
            name: "kfree_rcu",
            cpu: Some(cpu),
            priority: Priority::High,
        };
        // Relaxed: the thread, which takes it back, comes after it.
        self.kvfree_rcu.drainers.fetch_add(1, Ordering::Relaxed);
        let argument = core::ptr::from_ref(lane).expose_provenance();
        let thread = M::spawn(spawn, Lane::<M>::enter, argument).inspect_err(|_| {
            self.kvfree_rcu.drainers.fetch_sub(1, Ordering::Relaxed);
        })?;
        *lane.thread.lock() = Some(thread);
        // What was queued before there was a thread.
        lane.wake();
        Ok(())
    }

    /// Waits until nothing waits for a grace period any more, nor lingers, and ends the drainers. For machines that end. Nobody may
    /// call `kfree_rcu` any more. Task context.
    pub fn stop_drainers(&self) {
        self.stop_lingering();
        self.kvfree_rcu_barrier();
        // Release: the threads see what came before. They are woken after it.
        self.kvfree_rcu.stopping.store(true, Ordering::Release);
        for lane in self.kvfree_rcu.lanes() {
            lane.wake();
        }
        // Acquire: what they did is over.
        while self.kvfree_rcu.drainers.load(Ordering::Acquire) != 0 {
            M::yield_now();
            M::relax();
        }
        for lane in self.kvfree_rcu.lanes() {
            *lane.thread.lock() = None;
            let spare = lane.state.lock().loose.take_spare();
            if let Some(page) = spare {
                lane.free_page(page);
            }
        }
    }
}

impl<M: Machine> Lane<M> {
    fn enter(argument: usize) {
        let lane = core::ptr::with_exposed_provenance::<Self>(argument);
        // SAFETY: a lane is a part of the allocator, which outlives its drainers (`stop_drainers`).
        let lane = unsafe { &*lane };
        let kvfree_rcu = &lane.slabs().kvfree_rcu;
        // Acquire pairs with the Release in `stop_drainers`.
        while !kvfree_rcu.stopping.load(Ordering::Acquire) {
            match lane.look() {
                Next::Woken => M::park(),
                Next::At(ns) => M::park_until(ns),
            }
        }
        // Release pairs with the Acquire in `stop_drainers`.
        kvfree_rcu.drainers.fetch_sub(1, Ordering::Release);
    }

    /// Does all that is to be done now.
    fn look(&self) -> Next {
        self.drain();
        self.close_old();
        self.expedite();
        let (next, then) = self.settle();
        {
            let _pinned = Preempt::<M>::disable();
            self.follow(then);
        }
        next
    }

    /// Frees all that is ripe. Task context.
    pub fn drain(&self) {
        while let Some(hand) = self.take_ripe() {
            self.free(hand);
            self.ease();
        }
    }

    /// Closes what has been open for too long.
    fn close_old(&self) {
        let before = M::now_ns().saturating_sub(OPEN_NS);
        let pinned = Preempt::<M>::disable();
        // While the CPU does not run its drainer runs elsewhere; nothing is open then.
        if pinned.cpu() == self.cpu {
            self.close_open(Arrow::RcuCloseOld, before);
        }
        let then = {
            let mut state = self.state.lock();
            if (1..=before).contains(&state.loose.open_since)
                && state.loose.close_all(false, || self.name())
            {
                self.arrow(Arrow::RcuCloseLoose);
                self.call_for(&mut state)
            } else {
                Then::Nothing
            }
        };
        self.follow(then);
    }

    /// Closes the open sheaves of the CPU that runs this, whose lane it is, that were opened until then. Pinned.
    /// `false`: one of them is in use by what this has interrupted.
    pub fn close_open(&self, why: Arrow, opened_until: u64) -> bool {
        // Those that interrupts open meanwhile are left alone: else this might never end.
        let opened_until = opened_until.min(M::now_ns());
        while let Some((cache, ticket)) = self.take_open(opened_until) {
            // SAFETY: the hands keep it.
            let cache = unsafe { cache.as_ref() };
            let then = cache.close_rcu_free(self, why);
            match then {
                Some(then) => self.follow(then),
                None => cache.arrow(Arrow::RcuCloseBusy),
            }
            if cache.hands.rest(ticket, 1) {
                self.slabs().kvfree_rcu.rested.wake_all();
            }
            if then.is_none() {
                return false;
            }
        }
        true
    }

    /// A cache with a sheaf that was opened until then, with a ticket of its hands. All are looked at with the lock held
    /// throughout: others turn the list, too.
    fn take_open(&self, opened_until: u64) -> Option<(NonNull<KmemCache<M>>, Ticket)> {
        let mut state = self.state.lock();
        for _ in 0..state.parts() {
            let part = state.rotate()?;
            // SAFETY: on the list, so its cache is there; with the lock, and no other is there.
            let (part, barred) = unsafe { (part.as_ref(), part.as_ref().locked().is_barred()) };
            if !barred && (1..=opened_until).contains(&part.open_since()) {
                // SAFETY: as above. From now on the hands keep it: who destroys it bars the part, with the lock, then waits for these.
                let ticket = unsafe { part.cache.as_ref() }.hands.take(1);
                return Some((part.cache, ticket));
            }
        }
        None
    }

    /// If too much waits, makes a grace period at once, and frees what that makes ripe.
    fn expedite(&self) {
        let urgent = core::mem::take(&mut self.state.lock().urgent);
        let Some(rcu) = self.slabs().rcu() else {
            return;
        };
        if !urgent {
            return;
        }
        self.arrow(Arrow::LaneExpedite);
        {
            let _pinned = Preempt::<M>::disable();
            // The callback that is queued is not needed, nor in the way.
            let mut state = self.state.lock();
            state.loose.close_all(true, || self.name());
        }
        rcu.synchronize_expedited();
        self.drain();
    }

    /// What comes next, now that all is done.
    fn settle(&self) -> (Next, Then) {
        let mut state = self.state.lock();
        if state.stage == Stage::Called {
            return (Next::Woken, Then::Nothing);
        }
        let mut closed = state.loose.has_closed();
        let mut opened = match state.loose.open_since {
            0 if !state.loose.has_open() => u64::MAX,
            since => since,
        };
        state.for_each_part(|part, locked| {
            closed |= locked.has_closed();
            // What is barred its destroyer closes.
            if part.open_since() != 0 && !locked.is_barred() {
                opened = opened.min(part.open_since());
            }
        });
        if closed && self.slabs().rcu().is_some() {
            state.stage = Stage::Called;
            return (Next::Woken, Then::Call);
        }
        if opened != u64::MAX {
            self.arrow(Arrow::LaneDoze);
            state.stage = Stage::Dozing;
            // What is old already cannot be closed here: its CPU has just gone, and who takes it down may wait for this one.
            let soon = M::now_ns() + LOOK_NS;
            return (Next::At((opened + OPEN_NS).max(soon)), Then::Nothing);
        }
        self.arrow(Arrow::LaneIdle);
        state.stage = Stage::Idle;
        (Next::Woken, Then::Nothing)
    }
}
