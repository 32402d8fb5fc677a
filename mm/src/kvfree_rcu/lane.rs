//! A CPU's lane: what was given to `kfree_rcu` there and waits for a grace period.
//!
//! # What is on it
//!
//! | batch | of | open | closed |
//! |---|---|---|---|
//! | rcu sheaf | one cache | the CPU's *rcu_free* sheaf, under its local lock | in the cache's [`Part`] of the lane |
//! | page of pointers | one kind of memory | in the lane ([`Loose`]) | the same |
//! | chain of heads | anything | the same | the same |
//!
//! A batch is *closed* with a cookie: that of the grace period that all readers of then will
//! have seen the end of. It is *ripe* when the cookie is done, and then taken off the lane by whoever comes
//! first, into his [hands](super::hands), all of that with the lane's lock; he frees its objects, and says that they rest.
//!
//! # Who makes it go on
//!
//! | stage | means | left by | to |
//! |---|---|---|---|
//! | idle | nothing waits | a batch is opened: the drainer is woken | awake |
//! | | | a batch is closed: the callback is queued | called |
//! | awake | the drainer is about to look, or does | the drainer, at the end of its look: closed batches are left, the callback is queued | called |
//! | | | the same: only open ones are left, it will look again when they are old | dozing |
//! | | | the same: nothing is left | idle |
//! | dozing | the drainer sleeps until an open batch is old | a batch is closed: the callback is queued | called |
//! | | | the time has come | awake |
//! | called | the lane's one callback waits for its grace period | the callback: wakes the drainer | awake |
//!
//! So there is at most one callback of a lane in flight, however many batches wait, and none is
//! left without somebody who will look after it. Who closes a batch queues the callback without the lane's lock, in the
//! same section without preemption. Nobody but the drainers relies on it: barriers ask for their own grace
//! period.
//!
//! The lock's level: a CPU's local lock (81) may be held, nothing is taken under it.

use core::{
    cell::UnsafeCell,
    ptr::{NonNull, null_mut},
};

use platform::{
    CpuId,
    lock::IrqSpinLock,
    lock_class,
    sync::{AtomicPtr, AtomicU64, Ordering},
    wait::WaitQueue,
};
use rcu::{PackedCookie, Rcu, callbacks};

use super::{
    hands::Hands,
    loose::Loose,
    part::{Locked, Part},
};
use crate::slab::{Machine, Slabs, arrows::Arrow, sheaf::Sheaf};

lock_class! {
    /// What waits for a grace period on a CPU.
    pub struct LaneLock = ("kfree_rcu lane", 85);
    /// The thread that frees it.
    pub struct DrainerThread = ("kfree_rcu thread", 89);
}

/// A batch that was closed before there was an engine: no cookie has this.
pub(super) const UNNAMED: u64 = 1;

/// A CPU's lane. See the module.
#[repr(align(64))]
pub(crate) struct Lane<M: Machine> {
    pub cpu: CpuId,
    /// Written before the allocator is used.
    slabs: AtomicPtr<Slabs<M>>,
    pub state: IrqSpinLock<State<M>, M, LaneLock>,
    /// Queued in stage *called*, and then the engine's.
    callback: UnsafeCell<callbacks::Head>,
    /// What was taken off it, of whatever cache.
    pub hands: Hands,
    pub thread: IrqSpinLock<Option<M::Thread>, M, DrainerThread>,
    /// The thread that frees what is ripe since it queued where far too much waits.
    pub helper: IrqSpinLock<Option<M::Thread>, M, DrainerThread>,
    /// Bytes that wait here, for a glance; changed with the lock.
    bytes: AtomicU64,
    /// Those who wait until fewer bytes do.
    pub eased: WaitQueue<M>,
}

// SAFETY: the callback's head is used by who moves the stage to *called*, and then by the engine;
// all else is shared by its own protocols.
unsafe impl<M: Machine> Sync for Lane<M> {}
// SAFETY: as above.
unsafe impl<M: Machine> Send for Lane<M> {}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Idle,
    Awake,
    Dozing,
    Called,
}

/// What is to be done when the locks have been given back.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// The callback is to be queued.
    Call,
    /// The drainer is to be woken.
    Wake,
    Both,
}

impl Then {
    pub fn and_wake(self, wake: bool) -> Self {
        match (self, wake) {
            (_, false) => self,
            (Self::Nothing | Self::Wake, true) => Self::Wake,
            (Self::Call | Self::Both, true) => Self::Both,
        }
    }
}

/// What the lane's lock protects.
pub(crate) struct State<M: Machine> {
    pub stage: Stage,
    /// Parts with something in them, the one that is to be looked at next first.
    first: Option<NonNull<Part<M>>>,
    last: Option<NonNull<Part<M>>>,
    pub loose: Loose,
    /// More waits than should: the drainer is to hurry.
    pub urgent: bool,
    pub bytes: u64,
}

// SAFETY: what the pointers lead to is used with the lock.
unsafe impl<M: Machine> Send for State<M> {}

impl<M: Machine> Lane<M> {
    /// An empty one; [`settle_in`](Self::settle_in) comes next.
    pub fn new(cpu: CpuId) -> Self {
        Self {
            cpu,
            slabs: AtomicPtr::new(null_mut()),
            state: IrqSpinLock::new(State {
                stage: Stage::Idle,
                first: None,
                last: None,
                loose: Loose::default(),
                urgent: false,
                bytes: 0,
            }),
            callback: UnsafeCell::new(callbacks::Head::new()),
            hands: Hands::new(),
            thread: IrqSpinLock::new(None),
            helper: IrqSpinLock::new(None),
            bytes: AtomicU64::new(0),
            eased: WaitQueue::new(),
        }
    }

    /// The allocator is where it will stay.
    pub fn settle_in(&self, slabs: &Slabs<M>) {
        // Relaxed: nobody else is there yet.
        self.slabs
            .store(core::ptr::from_ref(slabs).cast_mut(), Ordering::Relaxed);
    }

    pub fn slabs(&self) -> &Slabs<M> {
        // SAFETY: the lane is a part of it, and used from `start` on. Relaxed: written before that.
        unsafe { &*self.slabs.load(Ordering::Relaxed) }
    }

    /// Bytes that wait here; a glance. Any context.
    pub fn bytes(&self) -> u64 {
        // Relaxed: a glance.
        self.bytes.load(Ordering::Relaxed)
    }

    /// The name of what all that is there now waits for.
    pub fn name(&self) -> u64 {
        match self.slabs().rcu() {
            Some(rcu) => rcu.snap_full().pack().to_bits(),
            None => UNNAMED,
        }
    }

    /// Whether a batch of this cookie is ripe.
    pub fn is_ripe(&self, cookie: u64) -> bool {
        cookie != UNNAMED
            && self
                .slabs()
                .rcu()
                .is_some_and(|rcu| rcu.poll_packed(PackedCookie::from_bits(cookie)))
    }

    /// A CPU's rcu_free sheaf changes: `closed` was it, and waits from now on; it has a fresh
    /// one (`opened`), or none. With the local lock of that CPU's sheaves, by whose right `closed` is the caller's.
    ///
    /// # Safety
    ///
    /// `part` is a part of this lane; `closed` is a sheaf of its cache, with objects, and given up.
    pub unsafe fn exchange(
        &self,
        part: &Part<M>,
        closed: Option<NonNull<Sheaf>>,
        opened: bool,
    ) -> Then {
        let now = if opened { M::now_ns().max(1) } else { 0 };
        let mut state = self.state.lock();
        let mut then = Then::Nothing;
        // SAFETY: with the lock.
        let mut locked = unsafe { part.locked() };
        if let Some(sheaf) = closed {
            // Inside the lock, so that cookies are in the order of the sheaves. SAFETY: the caller's.
            unsafe {
                Sheaf::set_cookie(sheaf, self.name());
                // SAFETY: the cache is there as long as its parts.
                let size = part.cache.as_ref().layout().size;
                let bytes = u64::from(Sheaf::len(sheaf)) * u64::from(size);
                locked.push(sheaf);
                then = self.closed(&mut state, bytes, locked.is_barred());
            }
        }
        part.set_open(now);
        if opened && state.stage == Stage::Idle {
            state.stage = Stage::Awake;
            then = then.and_wake(true);
        }
        state.relink(part, &mut locked);
        then
    }

    /// A batch of so many bytes was closed; its own destroyer comes for one of a part that is `barred`. With the lock.
    fn closed(&self, state: &mut State<M>, bytes: u64, barred: bool) -> Then {
        if barred {
            self.count_bytes(state, bytes);
            return Then::Nothing;
        }
        let urge = self.add_bytes(state, bytes);
        self.call_for(state).and_wake(urge)
    }

    /// Something is closed: somebody will come for it. With the lock.
    pub fn call_for(&self, state: &mut State<M>) -> Then {
        match state.stage {
            Stage::Idle | Stage::Dozing if self.slabs().rcu().is_some() => {
                state.stage = Stage::Called;
                Then::Call
            }
            _ => Then::Nothing,
        }
    }

    /// So many bytes more wait here; whether the drainer is to be told that it is to hurry. With
    /// the lock.
    pub fn add_bytes(&self, state: &mut State<M>, bytes: u64) -> bool {
        self.count_bytes(state, bytes);
        let soft = self.slabs().kvfree_rcu.soft_limit();
        if state.urgent || state.bytes <= soft {
            return false;
        }
        state.urgent = true;
        self.arrow(Arrow::LaneUrge);
        true
    }

    fn count_bytes(&self, state: &mut State<M>, bytes: u64) {
        state.bytes += bytes;
        self.bytes.store(state.bytes, Ordering::Relaxed);
    }

    /// So many bytes were taken off. With the lock.
    pub fn sub_bytes(&self, state: &mut State<M>, bytes: u64) {
        state.bytes -= bytes;
        self.bytes.store(state.bytes, Ordering::Relaxed);
    }

    /// Does what was found to be done. Any context but NMI; preemption has been off since then, and no lock of
    /// the allocator is held.
    #[inline]
    pub fn follow(&self, then: Then) {
        if then != Then::Nothing {
            self.follow_slowly(then);
        }
    }

    #[cold]
    fn follow_slowly(&self, then: Then) {
        if matches!(then, Then::Call | Then::Both)
            && let Some(rcu) = self.slabs().rcu()
        {
            self.queue_callback(rcu);
        }
        if matches!(then, Then::Wake | Then::Both) {
            self.wake();
        }
    }

    fn queue_callback(&self, rcu: &Rcu<M>) {
        self.arrow(Arrow::LaneCall);
        // SAFETY: who moved the stage to *called* has the head until the callback has run, which moves it on. It lies in the lane,
        // which outlives the engine's use of it; the callback may run anywhere.
        unsafe {
            let head = NonNull::new_unchecked(self.callback.get());
            rcu.call(head, Self::grace_period_over);
        }
    }

    /// # Safety
    ///
    /// `head` is that of a lane in stage *called*.
    unsafe fn grace_period_over(head: NonNull<callbacks::Head>) {
        let offset = core::mem::offset_of!(Self, callback);
        // SAFETY: it lies in a lane, which is there as long as the engine.
        let lane = unsafe { head.byte_sub(offset).cast::<Self>().as_ref() };
        lane.arrow(Arrow::LaneRipe);
        lane.state.lock().stage = Stage::Awake;
        lane.wake();
    }

    /// Lets the drainer look. Any context but NMI.
    pub fn wake(&self) {
        if let Some(thread) = &*self.thread.lock() {
            M::unpark(thread);
        }
    }

    /// Gives all batches names that were closed before there was an engine, and sees to it that somebody comes.
    pub fn begin(&self) {
        let then = {
            let mut state = self.state.lock();
            let name = |cookie| {
                if cookie == UNNAMED {
                    self.name()
                } else {
                    cookie
                }
            };
            state.for_each_part(|_, locked| locked.cookies(name));
            state.loose.cookies(name);
            if state.is_empty() {
                Then::Nothing
            } else {
                self.call_for(&mut state)
            }
        };
        self.follow(then);
    }

    /// An arrow of the state tables is taken. Any context.
    #[inline(always)]
    pub fn arrow(&self, arrow: Arrow) {
        self.slabs().arrow(arrow);
    }
}

impl<M: Machine> State<M> {
    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.first.is_none() && !self.loose.has_closed() && !self.loose.has_open()
    }

    /// Links a part, or takes it off the list, as it needs.
    pub fn relink(&mut self, part: &Part<M>, locked: &mut Locked<'_, M>) {
        match (part.is_linked(), locked.is_needed()) {
            (false, true) => self.link(part, locked),
            (true, false) => self.unlink(part, locked),
            _ => {}
        }
    }

    fn link(&mut self, part: &Part<M>, locked: &mut Locked<'_, M>) {
        locked.set_before(self.last);
        locked.set_next(None);
        match self.last {
            // SAFETY: another part of the list, with the lock.
            Some(last) => unsafe { last.as_ref().locked().set_next(Some(NonNull::from(part))) },
            None => self.first = Some(NonNull::from(part)),
        }
        self.last = Some(NonNull::from(part));
        locked.set_linked(true);
    }

    fn unlink(&mut self, part: &Part<M>, locked: &mut Locked<'_, M>) {
        debug_assert!(part.is_linked(), "only what is on the list is taken off");
        let (before, next) = (locked.before(), locked.next());
        // SAFETY: other parts of the list, with the lock.
        unsafe {
            match before {
                Some(before) => before.as_ref().locked().set_next(next),
                None => self.first = next,
            }
            match next {
                Some(next) => next.as_ref().locked().set_before(before),
                None => self.last = before,
            }
        }
        locked.set_linked(false);
    }

    /// The list's first part, to be looked at.
    pub fn first_part(&self) -> Option<NonNull<Part<M>>> {
        self.first
    }

    /// The first part of the list goes behind the others, and is the result.
    pub fn rotate(&mut self) -> Option<NonNull<Part<M>>> {
        let first = self.first?;
        if self.first != self.last {
            // SAFETY: on the list, so its cache is there; with the lock.
            unsafe {
                let part = first.as_ref();
                let mut locked = part.locked();
                self.unlink(part, &mut locked);
                self.link(part, &mut locked);
            }
        }
        Some(first)
    }

    /// How many parts there are.
    pub fn parts(&mut self) -> usize {
        let mut count = 0;
        self.for_each_part(|_, _| count += 1);
        count
    }

    /// Calls `each` with every part.
    pub fn for_each_part(&mut self, mut each: impl FnMut(&Part<M>, &mut Locked<'_, M>)) {
        let mut next = self.first;
        while let Some(part) = next {
            // SAFETY: on the list, so its cache is there; with the lock.
            let part = unsafe { part.as_ref() };
            // SAFETY: the same.
            let mut locked = unsafe { part.locked() };
            next = locked.next();
            each(part, &mut locked);
        }
    }
}
