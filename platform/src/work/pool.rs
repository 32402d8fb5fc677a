//! What one worker has to do, and the worker.

use alloc::sync::Arc;

use super::{Pools, Stats, Work, list::List};
use crate::{
    CpuId, Mark, Platform,
    lock::{IrqSpinGuard, IrqSpinLock},
    wait::{Completion, WaitQueue},
};

/// A worker and its items.
pub(super) struct Pool<P: Platform> {
    pub(super) cpu: CpuId,
    state: IrqSpinLock<PoolState<P>, P, Pools>,
    /// Who waits for `oldest` to move.
    pub(super) flushed: WaitQueue<P>,
    /// The worker is done with all but its reference to this.
    pub(super) ended: Completion<P>,
}

pub(super) type PoolGuard<'a, P> = IrqSpinGuard<'a, PoolState<P>, P, Pools>;

/// What a pool's lock guards, with the states of the items whose home it is.
pub(super) struct PoolState<P: Platform> {
    ready: List<P>,
    /// By time, earliest first.
    delayed: List<P>,
    /// Once the worker has begun, and until it ends.
    worker: Option<P::Thread>,
    /// The worker found nothing to do, and was not woken since.
    idle: bool,
    /// Nothing is accepted any more; the worker ends when nothing is ready.
    closing: bool,
    /// The number last given to an item that became ready.
    last_number: u64,
    /// That of the item that runs.
    running: Option<u64>,
    /// Some who flush wait for an item with this number or a smaller one. `MAX`: nobody.
    awaited: u64,
    pub(super) stats: Stats,
}

const NOBODY: u64 = u64::MAX;

/// Where an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In no list.
    Nowhere,
    /// In `ready`, with the pool's number for it.
    Ready(u64),
    /// In `delayed`, until this time.
    Delayed(u64),
}

impl<P: Platform> Pool<P> {
    pub(super) fn new(cpu: CpuId) -> Self {
        Self {
            cpu,
            state: IrqSpinLock::new(PoolState {
                ready: List::new(),
                delayed: List::new(),
                worker: None,
                idle: false,
                closing: false,
                last_number: 0,
                running: None,
                awaited: NOBODY,
                stats: Stats::default(),
            }),
            flushed: WaitQueue::new(),
            ended: Completion::new(),
        }
    }

    pub(super) fn lock(&self) -> PoolGuard<'_, P> {
        self.state.lock()
    }

    /// The lock, while holding that of a pool with a smaller number.
    pub(super) fn lock_second(&self) -> PoolGuard<'_, P> {
        self.state.lock_nested(1)
    }

    /// Waits until everything that is ready or runs now has gone.
    pub(super) fn flush(&self) {
        let last = {
            let mut state = self.lock();
            state.make_due_ready();
            state.last_number
        };
        self.flushed.wait_until(|| {
            let mut state = self.lock();
            let gone = state.has_gone(last);
            if !gone {
                state.awaited = state.awaited.min(last);
            }
            gone
        });
    }

    /// Accepts nothing more, cancels what is delayed, lets the worker end.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.wake_worker();
        while let Some(item) = state.delayed.first() {
            let item = core::ptr::from_ref(item);
            // SAFETY: in the list, so alive; this pool is its home, and locked.
            let item = unsafe { state.cancel(&*item, self) };
            drop(state);
            // Without the lock: it may be the last reference.
            drop(item);
            state = self.lock();
        }
    }

    /// What the worker does.
    pub(super) fn work(&self) {
        let mut state = self.lock();
        state.worker = Some(P::current_thread());
        loop {
            state.idle = false;
            state.make_due_ready();
            if let Some(item) = state.take_ready() {
                drop(state);
                self.run(item);
                state = self.lock();
                continue;
            }
            if state.closing {
                break;
            }
            let deadline = state.first_deadline();
            state.idle = true;
            drop(state);
            P::mark(Mark::Step);
            match deadline {
                None => P::park(),
                Some(deadline) => P::park_until(deadline),
            }
            state = self.lock();
        }
        let thread = state.worker.take();
        drop(state);
        drop(thread);
    }

    /// Runs an item that was taken from the list.
    fn run(&self, item: Arc<Work<P>>) {
        let begin = P::now_ns();
        item.call();
        let took = P::now_ns().saturating_sub(begin);
        let mut state = self.lock();
        state.stats.run += 1;
        state.stats.longest_ns = state.stats.longest_ns.max(took);
        state.running = None;
        // SAFETY: this pool is its home, since it ran here; it is locked.
        unsafe { item.with(|state| state.running = None) };
        // SAFETY: as above.
        unsafe { item.wake_waiting() };
        state.wake_flushers(self);
        drop(state);
        // The reference goes here, without the lock: it may be the last one.
    }
}

impl<P: Platform> PoolState<P> {
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether the thread that runs this is the worker.
    pub(super) fn is_worker(&self) -> bool {
        self.worker.as_ref() == Some(&P::current_thread())
    }

    /// Adds an item that is in no list, at once or at a time. Wakes the worker if it would
    /// sleep longer.
    ///
    /// # Safety
    ///
    /// This pool is the item's home.
    pub(super) unsafe fn add(&mut self, item: Arc<Work<P>>, deadline_ns: Option<u64>) {
        let earlier = match deadline_ns {
            None => true,
            Some(deadline) => self.first_deadline().is_none_or(|first| deadline < first),
        };
        match deadline_ns {
            None => {
                self.last_number += 1;
                let place = Place::Ready(self.last_number);
                // SAFETY: as the caller promises.
                unsafe {
                    item.with(|state| state.place = place);
                    self.ready.insert_after(item, |_| true);
                }
            }
            Some(deadline) => {
                // SAFETY: as the caller promises; those in the list have their home here.
                unsafe {
                    item.with(|state| state.place = Place::Delayed(deadline));
                    self.delayed
                        .insert_after(item, |there| there.deadline() <= Some(deadline));
                }
            }
        }
        if earlier {
            self.wake_worker();
        }
    }

    /// Takes an item out of the list it is in.
    ///
    /// # Safety
    ///
    /// This pool is the item's home.
    pub(super) unsafe fn remove(&mut self, item: &Work<P>) -> Option<Arc<Work<P>>> {
        // SAFETY: as the caller promises.
        let place =
            unsafe { item.with(|state| core::mem::replace(&mut state.place, Place::Nowhere)) };
        let list = match place {
            Place::Nowhere => return None,
            Place::Ready(_) => &mut self.ready,
            Place::Delayed(_) => &mut self.delayed,
        };
        // SAFETY: as the caller promises, and the place says that it is there.
        Some(unsafe { list.remove(item) })
    }

    /// Takes an item out, for good, and wakes who waits for that. The list's reference, to
    /// be dropped without the lock.
    ///
    /// # Safety
    ///
    /// This pool, the state of `pool`, is the item's home.
    pub(super) unsafe fn cancel(&mut self, item: &Work<P>, pool: &Pool<P>) -> Option<Arc<Work<P>>> {
        // SAFETY: as the caller promises.
        let reference = unsafe { self.remove(item) }?;
        self.stats.cancelled += 1;
        // SAFETY: as the caller promises.
        unsafe {
            item.with(|state| state.pending = None);
            item.wake_waiting();
        }
        self.wake_flushers(pool);
        Some(reference)
    }

    /// Takes the first item that is ready, to be run.
    fn take_ready(&mut self) -> Option<Arc<Work<P>>> {
        let first = core::ptr::from_ref(self.ready.first()?);
        // SAFETY: in the list, so alive, and at home here.
        let item = unsafe { self.ready.remove(&*first) };
        // SAFETY: at home here.
        self.running = unsafe {
            item.with(|state| {
                state.running = state.pending.take();
                match core::mem::replace(&mut state.place, Place::Nowhere) {
                    Place::Ready(number) => Some(number),
                    Place::Nowhere | Place::Delayed(_) => None,
                }
            })
        };
        Some(item)
    }

    /// Moves delayed items whose time has come.
    fn make_due_ready(&mut self) {
        if self.first_deadline().is_none() {
            return;
        }
        let now = P::now_ns();
        while let Some(item) = self.delayed.first() {
            if item.deadline() > Some(now) {
                break;
            }
            let item = core::ptr::from_ref(item);
            // SAFETY: in the list, so alive, and at home here.
            unsafe {
                let item = self.delayed.remove(&*item);
                self.add(item, None);
            }
        }
    }

    /// When the first delayed item is due.
    fn first_deadline(&self) -> Option<u64> {
        self.delayed.first()?.deadline()
    }

    /// Whether all items with numbers up to `number` have run or were cancelled. The list is
    /// in the order of the numbers, and what runs was before it.
    fn has_gone(&self, number: u64) -> bool {
        let oldest = match (self.running, self.ready.first()) {
            (Some(running), _) => Some(running),
            (None, Some(item)) => item.number(),
            (None, None) => None,
        };
        oldest.is_none_or(|oldest| oldest > number)
    }

    /// Wakes who flushes, if what they wait for has gone; they look for themselves.
    pub(super) fn wake_flushers(&mut self, pool: &Pool<P>) {
        if self.awaited != NOBODY && self.has_gone(self.awaited) {
            self.awaited = NOBODY;
            pool.flushed.wake_all();
        }
    }

    /// Lets the worker look at its lists again.
    fn wake_worker(&mut self) {
        if core::mem::take(&mut self.idle)
            && let Some(worker) = &self.worker
        {
            P::unpark(worker);
        }
    }
}
