//! Counting semaphores.

use core::fmt;

use super::{
    WaitLists,
    list::{Waiters, sleep_until_woken},
    might_sleep,
};
use crate::{Platform, lock::IrqSpinLock, sync::const_unless_model};

/// A number of things to take, and threads that wait for one.
///
/// Strictly first in, first out: while anybody waits, what is put back goes to the thread
/// that has waited longest, and nobody overtakes.
pub struct Semaphore<P: Platform> {
    state: IrqSpinLock<State<P>, P, WaitLists>,
}

struct State<P: Platform> {
    /// Things to take. 0 while anybody is in the list.
    count: usize,
    waiters: Waiters<P>,
}

impl<P: Platform> Semaphore<P> {
    const_unless_model! {
        /// With `count` things to take.
        pub fn new(count: usize) -> Self {
            Self {
                state: IrqSpinLock::new(State { count, waiters: Waiters::new() }),
            }
        }
    }

    /// Takes one; sleeps until there is one. May sleep.
    #[track_caller]
    pub fn down(&self) {
        might_sleep::<P>();
        self.take(None);
    }

    /// [`down`](Self::down), but at most until [`Platform::now_ns`] is `deadline_ns`.
    /// `false`: nothing was taken. May sleep.
    #[track_caller]
    #[must_use = "the deadline may have come first"]
    pub fn down_timeout(&self, deadline_ns: u64) -> bool {
        might_sleep::<P>();
        self.take(Some(deadline_ns))
    }

    /// Takes one if there is one. Any context but NMI.
    #[must_use = "there may be none"]
    pub fn try_down(&self) -> bool {
        let mut state = self.state.lock();
        let any = state.count > 0;
        if any {
            state.count -= 1;
        }
        any
    }

    /// Puts one back, or one more in: to the thread that has waited longest, if any. Any
    /// context but NMI.
    pub fn up(&self) {
        let mut state = self.state.lock();
        if !state.waiters.wake_first() {
            state.count += 1;
        }
    }

    /// How many could be taken now. For those who watch: may be out of date at once.
    pub fn available(&self) -> usize {
        self.state.lock().count
    }

    fn take(&self, deadline_ns: Option<u64>) -> bool {
        let mut state = self.state.lock();
        if state.count > 0 {
            state.count -= 1;
            return true;
        }
        let (state, woken) =
            sleep_until_woken(&self.state, state, |state| &mut state.waiters, deadline_ns);
        drop(state);
        woken
    }
}

impl<P: Platform> fmt::Debug for Semaphore<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").finish_non_exhaustive()
    }
}
