//! Wait queues.
//!
//! A waiter links its entry first and looks at the condition then; a waker makes the
//! condition true first and looks at the list then. Both do the linking and the looking
//! under the list's lock, so one of the two sections comes first: if the waiter's, the waker
//! finds the entry; if the waker's, the waiter, which has the lock after it, sees what came
//! before it, so the condition. No wake-up is lost.
//!
//! A wake-up of one goes to one entry, and stands for one look at the condition that begins
//! after it. If the condition came true in a look that began earlier, what the waker did may
//! be for another thread: the wake-up is handed to the next entry. A thread that looked in
//! vain links itself again, in its old place; one whose deadline came looks once more after
//! its entry was taken out.

use core::fmt;

use super::{
    WaitLists,
    list::{Linked, Waiter, Waiters},
    might_sleep,
};
use crate::{Mark, Platform, lock::IrqSpinLock, sync::const_unless_model};

/// Threads that wait for conditions to come true.
///
/// First in, first out: [`wake_one`](Self::wake_one) wakes the thread that has waited
/// longest. What the condition reads must be published by the waker before it wakes (any
/// store will do: the queue's lock orders it), and taken by the condition itself, if only
/// one shall have it.
pub struct WaitQueue<P: Platform> {
    waiters: IrqSpinLock<Waiters<P>, P, WaitLists>,
}

impl<P: Platform> WaitQueue<P> {
    const_unless_model! {
        /// A queue without waiters.
        pub fn new() -> Self {
            Self { waiters: IrqSpinLock::new(Waiters::new()) }
        }
    }

    /// Sleeps until `condition` holds. It is called by this thread, without a lock, at least
    /// once and after each wake-up; `true` ends the wait. It may sleep itself. May sleep.
    #[track_caller]
    pub fn wait_until(&self, condition: impl FnMut() -> bool) {
        might_sleep::<P>();
        self.wait(condition, None);
    }

    /// [`wait_until`](Self::wait_until), but at most until [`Platform::now_ns`] is
    /// `deadline_ns`. Whether the condition came to hold; it is looked at once more after
    /// the deadline. May sleep.
    #[track_caller]
    #[must_use = "the deadline may have come first"]
    pub fn wait_until_timeout(&self, condition: impl FnMut() -> bool, deadline_ns: u64) -> bool {
        might_sleep::<P>();
        self.wait(condition, Some(deadline_ns))
    }

    /// Wakes the thread that has waited longest. `false`: none waits. Any context but NMI.
    pub fn wake_one(&self) -> bool {
        P::mark(Mark::Step);
        self.waiters.lock().wake_first()
    }

    /// Wakes all threads that wait now. How many. Any context but NMI; holds the queue's
    /// lock meanwhile.
    pub fn wake_all(&self) -> usize {
        P::mark(Mark::Step);
        self.waiters.lock().wake_all()
    }

    /// Whether any thread waits. For those who watch: may be out of date at once.
    pub fn is_idle(&self) -> bool {
        self.waiters.lock().is_empty()
    }

    fn wait(&self, mut condition: impl FnMut() -> bool, deadline_ns: Option<u64>) -> bool {
        if condition() {
            return true;
        }
        let waiter = Waiter::new();
        let mut guard = self.waiters.lock();
        // SAFETY: settled or dropped below.
        let linked = unsafe { Linked::link(&self.waiters, &mut guard, |list| list, &waiter) };
        drop(guard);
        loop {
            P::mark(Mark::Step);
            let woken = waiter.is_woken();
            if condition() {
                let mut guard = self.waiters.lock();
                let woken_since = !woken && waiter.is_woken();
                linked.settled(&mut guard);
                if woken_since {
                    guard.wake_first();
                }
                return true;
            }
            if woken {
                // For nothing, as it turned out: others were quicker.
                let mut guard = self.waiters.lock();
                // SAFETY: a waker took it out, and `linked` still stands for it.
                unsafe { guard.link(&waiter) };
                continue;
            }
            if waiter.is_woken() {
                // The condition may have slept, and used up the token.
                continue;
            }
            if deadline_ns.is_some_and(|deadline| P::now_ns() >= deadline) {
                linked.settled(&mut self.waiters.lock());
                // A waker may have come since the last look, and chosen this thread.
                return condition();
            }
            Waiter::<P>::park(deadline_ns);
        }
    }
}

impl<P: Platform> Default for WaitQueue<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform> fmt::Debug for WaitQueue<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue").finish_non_exhaustive()
    }
}
