//! Completions.

use core::fmt;

use super::{
    WaitLists,
    list::{Waiters, sleep_until_woken},
    might_sleep,
};
use crate::{Platform, lock::IrqSpinLock, sync::const_unless_model};

/// Something that gets done, and threads that wait for it.
///
/// Each [`complete`](Self::complete) lets one wait pass, now or later, in the order in which
/// they came; [`complete_all`](Self::complete_all) lets all pass.
///
/// A completion may be freed as soon as [`wait`](Self::wait) (or a
/// [`wait_timeout`](Self::wait_timeout) or [`try_wait`](Self::try_wait) that says `true`) has
/// returned, if nobody else waits and no other completer comes: the completer's last access
/// is the store that gives the lock back, and each of these has the lock after it. So a
/// completion may lie on the stack of the thread that waits.
pub struct Completion<P: Platform> {
    state: IrqSpinLock<State<P>, P, WaitLists>,
}

struct State<P: Platform> {
    /// Waits that may pass; `ALL`: any number. 0 while anybody is in the list.
    passes: u32,
    waiters: Waiters<P>,
}

const ALL: u32 = u32::MAX;

impl<P: Platform> State<P> {
    fn pass(&mut self) -> bool {
        match self.passes {
            0 => return false,
            ALL => {}
            _ => self.passes -= 1,
        }
        true
    }
}

impl<P: Platform> Completion<P> {
    const_unless_model! {
        /// Not completed.
        pub fn new() -> Self {
            Self {
                state: IrqSpinLock::new(State { passes: 0, waiters: Waiters::new() }),
            }
        }
    }

    /// Lets one wait pass. Any context but NMI.
    pub fn complete(&self) {
        let mut state = self.state.lock();
        if state.passes != ALL && !state.waiters.wake_first() {
            // Stops below `ALL`: more are owed than threads can exist.
            state.passes = (state.passes + 1).min(ALL - 1);
        }
    }

    /// Lets all waits pass, until [`reinit`](Self::reinit). Any context but NMI.
    pub fn complete_all(&self) {
        let mut state = self.state.lock();
        state.passes = ALL;
        state.waiters.wake_all();
    }

    /// Sleeps until it may pass. What the completer did before is seen. May sleep.
    #[track_caller]
    pub fn wait(&self) {
        might_sleep::<P>();
        self.wait_for(None);
    }

    /// [`wait`](Self::wait), but at most until [`Platform::now_ns`] is `deadline_ns`.
    /// `false`: not completed till then; a completer may still come. May sleep.
    #[track_caller]
    #[must_use = "the deadline may have come first"]
    pub fn wait_timeout(&self, deadline_ns: u64) -> bool {
        might_sleep::<P>();
        self.wait_for(Some(deadline_ns))
    }

    /// Passes, if that is possible without sleeping. Any context but NMI.
    #[must_use = "it may not be completed"]
    pub fn try_wait(&self) -> bool {
        self.state.lock().pass()
    }

    /// Takes back what was completed and not waited for. Threads that wait go on waiting.
    /// Any context but NMI.
    pub fn reinit(&self) {
        self.state.lock().passes = 0;
    }

    fn wait_for(&self, deadline_ns: Option<u64>) -> bool {
        let mut state = self.state.lock();
        if state.pass() {
            return true;
        }
        let (state, woken) =
            sleep_until_woken(&self.state, state, |state| &mut state.waiters, deadline_ns);
        drop(state);
        woken
    }
}

impl<P: Platform> Default for Completion<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform> fmt::Debug for Completion<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").finish_non_exhaustive()
    }
}
