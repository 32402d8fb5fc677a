//! Sleeping: wait queues, completions, and locks whose waiters sleep.
//!
//! | what | for |
//! |---|---|
//! | [`WaitQueue`] | waiting until a condition holds that others make true |
//! | [`Completion`] | waiting until something is done |
//! | [`Mutex`] | one holder at a time, which may sleep |
//! | [`Semaphore`] | a number of holders, or of things to take |
//! | [`RwSemaphore`] | readers together or one writer, which may sleep |
//!
//! All are a value and a list of waiters under one [`IrqSpinLock`](crate::lock::IrqSpinLock) of class
//! [`WaitLists`] (level 80, so it may be taken under nearly any lock, and threads may be
//! woken under it). Waiting allocates nothing: a waiter's entry lies on its stack. Whoever
//! waits must be a thread with preemption and interrupts on, which
//! [`Platform::might_sleep`] checks even if there is nothing to wait for. Waking is allowed
//! in interrupts, but not in NMI, where the lock could be held by what was interrupted.
//!
//! # The life of an entry
//!
//! | state | who moves it on, always under the lock |
//! |---|---|
//! | unlinked | its thread, to linked |
//! | linked | a waker, to woken (wait queue, completion, semaphores: and unlinked); its thread, to unlinked, when it gives up or need not wait |
//! | woken | its thread, which finds it so when it has the lock again |
//!
//! A thread that was linked takes the lock once more before its frame goes away, however its
//! wait ended: by a wake-up, at its deadline, or because the condition came true meanwhile.
//! So a waker, which has the lock, only ever sees entries whose frames exist; and what a
//! waker did to the lock's owner is over when the woken thread goes on.
//!
//! A waker calls [`Platform::unpark`] under the lock, with the entry's own handle of the
//! thread. It neither copies nor drops a handle, so none is ever dropped in an interrupt.
//!
//! A wake-up is a word of the entry and the thread's token ([`Platform::unpark`]). The word
//! says that it was this wait that ended; the token only ends a park. Tokens may be left
//! over from elsewhere, and may be used up by a condition that sleeps itself; so a thread
//! parks only after it saw the word unset, and looks at it again after each park.
//!
//! # Bounds
//!
//! Lists are first in, first out. Who may overtake, and how often, each type says. Waking
//! all holds the lock, with interrupts off, for as long as it takes to wake them.

mod completion;
mod list;
mod mutex;
mod queue;
mod rw_semaphore;
mod semaphore;

pub use completion::Completion;
pub use mutex::{Mutex, MutexGuard};
pub use queue::WaitQueue;
pub use rw_semaphore::{ReadGuard, RwSemaphore, WriteGuard};
pub use semaphore::Semaphore;

use core::panic::Location;

use crate::{Acquisition, LockKind, Platform, lock::Class};

crate::lock_class! {
    /// The lists of who waits for what.
    pub struct WaitLists = ("wait list", 80);
}

/// What follows may sleep.
#[inline]
#[track_caller]
fn might_sleep<P: Platform>() {
    if P::CHECK_LOCKS {
        P::might_sleep(Location::caller());
    }
}

/// Tells the order checker that a sleeping lock is (about to be) taken.
#[inline]
#[track_caller]
fn acquired<P: Platform, C: Class>(lock: usize, kind: LockKind, is_try: bool, nesting: u8) {
    if P::CHECK_LOCKS {
        P::lock_acquire(&Acquisition {
            class: C::class(),
            lock,
            kind,
            is_try,
            nesting,
            at: Location::caller(),
        });
    }
}

/// Tells the order checker that a sleeping lock is about to be given back, or that the wait
/// for it was given up.
#[inline]
fn released<P: Platform, C: Class>(lock: usize) {
    if P::CHECK_LOCKS {
        P::lock_release(C::class(), lock);
    }
}
