//! Items of work.

use alloc::{boxed::Box, sync::Arc};
use core::{fmt, panic::Location};

use super::{
    Queue,
    list::Links,
    pool::{Place, PoolGuard, PoolState},
    queue::Workers,
};
use crate::{
    CpuId, Platform, Preempt,
    sync::{AtomicUsize, Cell, Ordering},
    wait::WaitQueue,
};

/// A function to be run by a [`Queue`]'s workers, as often as it is queued.
///
/// At most one run is pending at a time (waiting for its turn or its time), and at most one
/// is going on; what is queued while pending is not queued again. Dropping the last
/// reference may happen in a worker, after the last run.
pub struct Work<P: Platform> {
    workers: Arc<Workers<P>>,
    function: Function<P>,
    /// The number of the CPU whose pool's lock guards `state`. Written with that lock and
    /// the next one held; read by anybody, to be checked with the lock.
    home: AtomicUsize,
    state: Cell<State<P>>,
    /// Who waits for the item to have run, or not to run.
    changed: WaitQueue<P>,
}

type Function<P> = Box<dyn Fn(&Arc<Work<P>>) + Send + Sync>;

// SAFETY: the state is used with the home's lock only, and what it points to is other items.
unsafe impl<P: Platform> Send for Work<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for Work<P> {}

/// What the home's lock guards of an item.
pub(super) struct State<P: Platform> {
    pub(super) place: Place,
    /// The number of the run that is pending.
    pub(super) pending: Option<u64>,
    /// The number of the run that goes on.
    pub(super) running: Option<u64>,
    /// The number given last.
    last: u64,
    /// How many wait for the item to have ended for good; nothing is accepted meanwhile.
    canceling: u32,
    /// Somebody waits for a change.
    awaited: bool,
    pub(super) links: Links<P>,
}

/// What became of a wish to queue.
enum Outcome {
    Queued,
    AlreadyPending,
    Refused,
}

impl<P: Platform> Work<P> {
    /// An item of `queue` that runs `function`, which gets the item, so that it can queue it
    /// again. Allocates; may sleep.
    pub fn new(
        queue: &Queue<P>,
        function: impl Fn(&Arc<Self>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let workers = Arc::clone(queue.workers());
        Arc::new(Self {
            home: AtomicUsize::new(workers.first().cpu.index()),
            workers,
            function: Box::new(function),
            state: Cell::new(State {
                place: Place::Nowhere,
                pending: None,
                running: None,
                last: 0,
                canceling: 0,
                awaited: false,
                links: Links::new(),
            }),
            changed: WaitQueue::new(),
        })
    }

    /// Queues the item on this CPU, unless it is pending. `false`: it is, or it is refused,
    /// because [`cancel_sync`](Self::cancel_sync) is going on or the queue was dropped. What
    /// came before is seen by the run. Any context but NMI.
    pub fn queue(self: &Arc<Self>) -> bool {
        let cpu = Preempt::<P>::disable().cpu();
        self.queue_on(cpu)
    }

    /// [`queue`](Self::queue), on a chosen CPU (the first that has a worker, if this one has
    /// none). If the item runs on another, it is queued there.
    pub fn queue_on(self: &Arc<Self>, cpu: CpuId) -> bool {
        matches!(self.submit(cpu, None, false), Outcome::Queued)
    }

    /// Queues the item on this CPU for `delay_ns` nanoseconds from now, or later. As
    /// [`queue`](Self::queue) in all else.
    pub fn queue_delayed(self: &Arc<Self>, delay_ns: u64) -> bool {
        let cpu = Preempt::<P>::disable().cpu();
        self.queue_delayed_on(cpu, delay_ns)
    }

    /// [`queue_delayed`](Self::queue_delayed), on a chosen CPU.
    pub fn queue_delayed_on(self: &Arc<Self>, cpu: CpuId, delay_ns: u64) -> bool {
        matches!(
            self.submit(cpu, Some(deadline::<P>(delay_ns)), false),
            Outcome::Queued
        )
    }

    /// Makes the item pending for `delay_ns` nanoseconds from now: as
    /// [`queue_delayed`](Self::queue_delayed), but if it is pending already, delayed or not,
    /// it gets this time instead of the old one, on the CPU where it is. `false`: refused.
    /// Any context but NMI.
    pub fn modify_delayed(self: &Arc<Self>, delay_ns: u64) -> bool {
        let cpu = Preempt::<P>::disable().cpu();
        !matches!(
            self.submit(cpu, Some(deadline::<P>(delay_ns)), true),
            Outcome::Refused
        )
    }

    /// Makes the item not pending. `true`: it was, and that run will not come. A run that
    /// goes on is not waited for. Any context but NMI.
    pub fn cancel(&self) -> bool {
        let mut home = self.lock_home();
        let cancelled = self.cancel_at(&mut home);
        drop(home);
        // The list's reference goes without the lock.
        cancelled.is_some()
    }

    /// Makes the item neither pending nor running: [`cancel`](Self::cancel), and waits for a
    /// run that goes on. Until then queueing it is refused, to its own function too. `true`:
    /// it was pending. What the run did is seen. May sleep.
    ///
    /// From inside the item's function this waits for nothing, and refuses nothing: it is
    /// [`cancel`](Self::cancel).
    #[track_caller]
    pub fn cancel_sync(&self) -> bool {
        might_sleep::<P>();
        let cancelled = {
            let mut home = self.lock_home();
            let cancelled = self.cancel_at(&mut home);
            // SAFETY: the home's lock is held.
            let must_wait = unsafe {
                self.with(|state| {
                    let must_wait = state.running.is_some() && !home.is_worker();
                    state.canceling += u32::from(must_wait);
                    must_wait
                })
            };
            drop(home);
            if !must_wait {
                return cancelled.is_some();
            }
            cancelled
        };
        self.wait_until(|state| state.running.is_none());
        let home = self.lock_home();
        // SAFETY: the home's lock is held.
        unsafe { self.with(|state| state.canceling -= 1) };
        drop(home);
        cancelled.is_some()
    }

    /// Waits until all runs have ended that were queued before the call. One that is delayed
    /// is made ready at once. `false`: there was none. What the runs did is seen. May sleep.
    ///
    /// Must not be called from the function of an item that runs on the same CPU, whose
    /// worker would wait for itself: that is reported, and nothing is waited for. (From
    /// inside the item itself, if it is not pending, nothing is to be waited for.)
    #[track_caller]
    pub fn flush(&self) -> bool {
        might_sleep::<P>();
        let last = {
            let mut home = self.lock_home();
            // SAFETY: the home's lock is held.
            let (place, pending, running, last) = unsafe {
                self.with(|state| (state.place, state.pending, state.running, state.last))
            };
            let own = home.is_worker();
            if pending.is_none() && (running.is_none() || own) {
                return false;
            }
            if own {
                drop(home);
                P::report(format_args!(
                    "a worker waits for itself: flush of work, at {}",
                    Location::caller()
                ));
                return false;
            }
            // In a queue that is being dropped it is about to be cancelled.
            if matches!(place, Place::Delayed(_)) && !home.is_closing() {
                // SAFETY: the home's lock is held.
                unsafe {
                    if let Some(item) = home.remove(self) {
                        home.add(item, None);
                    }
                }
            }
            last
        };
        self.wait_until(|state| {
            state.pending.is_none_or(|number| number > last)
                && state.running.is_none_or(|number| number > last)
        });
        true
    }

    /// Whether it waits for its turn or its time. For those who watch: may be out of date at
    /// once. Any context but NMI.
    pub fn is_pending(&self) -> bool {
        let _home = self.lock_home();
        // SAFETY: the home's lock is held.
        unsafe { self.with(|state| state.pending.is_some()) }
    }

    /// Whether it runs. For those who watch: may be out of date at once. Any context but NMI.
    pub fn is_running(&self) -> bool {
        let _home = self.lock_home();
        // SAFETY: the home's lock is held.
        unsafe { self.with(|state| state.running.is_some()) }
    }

    /// Runs the function. By the worker.
    pub(super) fn call(self: &Arc<Self>) {
        (self.function)(self);
    }

    /// When it is due, if it is delayed. With the home's lock, by the pool.
    pub(super) fn deadline(&self) -> Option<u64> {
        // SAFETY: as said.
        match unsafe { self.with(|state| state.place) } {
            Place::Delayed(deadline) => Some(deadline),
            Place::Nowhere | Place::Ready(_) => None,
        }
    }

    /// The pool's number for it, if it is ready. With the home's lock, by the pool.
    pub(super) fn number(&self) -> Option<u64> {
        // SAFETY: as said.
        match unsafe { self.with(|state| state.place) } {
            Place::Ready(number) => Some(number),
            Place::Nowhere | Place::Delayed(_) => None,
        }
    }

    /// Wakes who waits for a change; they look for themselves.
    ///
    /// # Safety
    ///
    /// The home's lock is held.
    pub(super) unsafe fn wake_waiting(&self) {
        // SAFETY: as the caller promises.
        if unsafe { self.with(|state| core::mem::take(&mut state.awaited)) } {
            self.changed.wake_all();
        }
    }

    /// Gives access to the state.
    ///
    /// # Safety
    ///
    /// The home's lock is held, and this is not called from within `f`.
    pub(super) unsafe fn with<R>(&self, f: impl FnOnce(&mut State<P>) -> R) -> R {
        let state = self.state.exclusive();
        // SAFETY: the lock keeps others out, and nobody here has access.
        f(unsafe { state.get_mut() })
    }

    /// Locks the home's pool.
    fn lock_home(&self) -> PoolGuard<'_, P> {
        loop {
            // Relaxed: only a guess.
            let home = self.home.load(Ordering::Relaxed);
            let guard = self.workers.at(home).lock();
            // Relaxed: who moved it here, or away, had this lock.
            if self.home.load(Ordering::Relaxed) == home {
                return guard;
            }
            drop(guard);
            P::relax();
        }
    }

    fn cancel_at(&self, home: &mut PoolState<P>) -> Option<Arc<Self>> {
        // Relaxed: the home's lock is held.
        let pool = self.workers.at(self.home.load(Ordering::Relaxed));
        // SAFETY: the lock of `pool`, the home, is held.
        unsafe { home.cancel(self, pool) }
    }

    /// Sleeps until `done`, which is called with the home's lock, says so.
    fn wait_until(&self, done: impl Fn(&State<P>) -> bool) {
        self.changed.wait_until(|| {
            let _home = self.lock_home();
            // SAFETY: the home's lock is held.
            unsafe {
                self.with(|state| {
                    let done = done(state);
                    state.awaited |= !done;
                    done
                })
            }
        });
    }

    /// Queues the item, for `cpu` if it can be moved.
    fn submit(self: &Arc<Self>, cpu: CpuId, deadline_ns: Option<u64>, modify: bool) -> Outcome {
        let target = self.workers.of(cpu);
        loop {
            let mut home = self.lock_home();
            // Relaxed: the home's lock is held.
            let index = self.home.load(Ordering::Relaxed);
            // SAFETY: as said.
            if index == target.cpu.index() || !unsafe { self.is_idle() } {
                return self.submit_at(&mut home, deadline_ns, modify);
            }
            drop(home);
            // It may be moved: with both locks, in the order of the CPUs. The second one is
            // given back first (the first one turns interrupts on again): as declared here.
            let (own, is_lower) = (self.workers.at(index), index < target.cpu.index());
            let (lower, upper) = if is_lower {
                (own, target)
            } else {
                (target, own)
            };
            let mut lower = lower.lock();
            let mut upper = upper.lock_second();
            // Relaxed: whoever changed it from `index` had that lock.
            // SAFETY: then the home's lock is held.
            if self.home.load(Ordering::Relaxed) == index && unsafe { self.is_idle() } {
                // Relaxed: both locks are held, and who looks has one of them.
                self.home.store(target.cpu.index(), Ordering::Relaxed);
                let new_home = if is_lower { &mut upper } else { &mut lower };
                return self.submit_at(new_home, deadline_ns, modify);
            }
            drop(upper);
            drop(lower);
            P::relax();
        }
    }

    /// Whether it is neither pending nor running.
    ///
    /// # Safety
    ///
    /// The home's lock is held.
    unsafe fn is_idle(&self) -> bool {
        // SAFETY: as the caller promises.
        unsafe { self.with(|state| state.pending.is_none() && state.running.is_none()) }
    }

    /// Queues the item at its home, which is locked.
    fn submit_at(
        self: &Arc<Self>,
        home: &mut PoolState<P>,
        deadline_ns: Option<u64>,
        modify: bool,
    ) -> Outcome {
        // SAFETY: the home's lock is held; so below.
        let (pending, canceling) = unsafe { self.with(|state| (state.pending, state.canceling)) };
        if canceling > 0 || home.is_closing() {
            home.stats.refused += 1;
            return Outcome::Refused;
        }
        if pending.is_some() {
            if modify {
                // SAFETY: as above.
                unsafe {
                    if let Some(item) = home.remove(self) {
                        home.add(item, deadline_ns);
                    }
                }
                self.workers
                    .wake_flushers(self.home.load(Ordering::Relaxed), home);
            }
            return Outcome::AlreadyPending;
        }
        home.stats.queued += 1;
        // SAFETY: as above.
        unsafe {
            self.with(|state| {
                state.last += 1;
                state.pending = Some(state.last);
            });
            home.add(Arc::clone(self), deadline_ns);
        }
        Outcome::Queued
    }
}

/// The time that is `delay_ns` from now.
fn deadline<P: Platform>(delay_ns: u64) -> u64 {
    P::now_ns().saturating_add(delay_ns)
}

#[track_caller]
fn might_sleep<P: Platform>() {
    if P::CHECK_LOCKS {
        P::might_sleep(Location::caller());
    }
}

impl<P: Platform> fmt::Debug for Work<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}
