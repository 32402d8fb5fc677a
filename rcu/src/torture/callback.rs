//! Callbacks of the torture, counted when they are queued and when they run.
//!
//! # Invariants
//!
//! A callback lies in memory of its [`Torture`], which is not freed while one is queued: at
//! the end as many have run as were queued, or the torture is leaked.

use core::{
    cell::UnsafeCell,
    ptr::NonNull,
    sync::atomic::{AtomicPtr, Ordering},
};

use super::{Ground, Torture};
use crate::{Function, Head, Machine};

/// One callback, not queued or queued once.
#[derive(Debug)]
#[repr(C)]
pub struct Callback {
    /// First, so that its address is the callback's.
    head: UnsafeCell<Head>,
    /// Whose it is.
    owner: AtomicPtr<()>,
}

// SAFETY: the head is the engine's while it is queued, and nobody else's before and after.
unsafe impl Sync for Callback {}
// SAFETY: as above.
unsafe impl Send for Callback {}

impl Callback {
    pub const fn new() -> Self {
        Self {
            head: UnsafeCell::new(Head::new()),
            owner: AtomicPtr::new(core::ptr::null_mut()),
        }
    }
}

impl<M: Machine, G: Ground<M>> Torture<M, G> {
    /// Queues a callback; `run` begins by [`invoked`](Self::invoked). Any context but NMI.
    ///
    /// # Safety
    ///
    /// The callback is part of this torture's memory, and not queued.
    pub(super) unsafe fn queue(&self, callback: &Callback, run: Function) {
        let owner = core::ptr::from_ref(self).cast_mut().cast();
        // Relaxed: whoever runs it has the head from the engine.
        callback.owner.store(owner, Ordering::Relaxed);
        self.tally.queued.fetch_add(1, Ordering::Relaxed);
        // A pointer to all of it: `invoked` comes back from its head.
        let head = NonNull::from(callback).cast();
        // SAFETY: the head is the first field. It stays valid until it has run (module's
        // invariant), and is not queued.
        unsafe { self.ground.rcu().call(head, run) };
    }

    /// The torture and the callback that the engine has called with `head`.
    ///
    /// # Safety
    ///
    /// The callback was queued by [`queue`](Self::queue) of a torture of this type, and runs
    /// now.
    pub(super) unsafe fn invoked<'a>(head: NonNull<Head>) -> (&'a Self, &'a Callback) {
        // SAFETY: the head is a callback's first field, and lives (module's invariant).
        let callback = unsafe { head.cast::<Callback>().as_ref() };
        let owner = callback.owner.load(Ordering::Relaxed);
        // SAFETY: `queue` stored it, and it lives while a callback has not run.
        let torture: &Self = unsafe { &*owner.cast::<Self>() };
        (torture, callback)
    }

    /// A callback has done all that it does, and is not touched any more.
    pub(super) fn ran(&self) {
        // Release pairs with the Acquire in `all_ran`.
        self.tally.run.fetch_add(1, Ordering::Release);
    }

    /// Whether all that was queued so far has run, by who knows that nothing is queued now.
    pub(super) fn all_ran(&self) -> bool {
        let run = self.tally.run.load(Ordering::Acquire);
        run == self.tally.queued.load(Ordering::Relaxed)
    }
}
