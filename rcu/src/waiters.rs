//! Threads that wait for a whole grace period, on a stack that all push to and the machine
//! takes as a whole just before a grace period begins. Who pushed before that waits for this
//! one, who pushes later for the next.

use core::ptr::{NonNull, null_mut};

use platform::{
    Platform,
    sync::{AtomicPtr, Ordering},
    wait::Completion,
};

/// One of them; lies on its stack.
pub(crate) struct Waiter<P: Platform> {
    pub done: Completion<P>,
    /// The next older one. Written by its own thread before it is pushed.
    next: AtomicPtr<Self>,
}

/// Those who wait for the same.
pub(crate) struct Waiters<P: Platform>(AtomicPtr<Waiter<P>>);

/// Those who were taken.
pub(crate) struct Chain<P: Platform>(*mut Waiter<P>);

// SAFETY: a chain is its owner's alone; completions may be completed by any thread.
unsafe impl<P: Platform> Send for Chain<P> {}

impl<P: Platform> Waiter<P> {
    pub fn new() -> Self {
        Self {
            done: Completion::new(),
            next: AtomicPtr::new(null_mut()),
        }
    }
}

impl<P: Platform> Waiters<P> {
    pub fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// Whether somebody waits.
    pub fn is_empty(&self) -> bool {
        // Relaxed: a look. Who pushes sees to it that somebody looks after that.
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// Adds a thread.
    ///
    /// # Safety
    ///
    /// The waiter stays until it is done.
    pub unsafe fn push(&self, waiter: NonNull<Waiter<P>>) {
        // Relaxed: the exchange checks what was read.
        let mut head = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: the waiter is there (contract). Relaxed: published by the exchange.
            unsafe { waiter.as_ref() }
                .next
                .store(head, Ordering::Relaxed);
            // Release pairs with the Acquire in `take`: what the thread did before it waits
            // comes before the grace period.
            match self.0.compare_exchange_weak(
                head,
                waiter.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all.
    pub fn take(&self) -> Chain<P> {
        // Acquire pairs with the Release in `push`; only read-modify-writes lie between.
        Chain(self.0.swap(null_mut(), Ordering::Acquire))
    }
}

impl<P: Platform> Chain<P> {
    pub const EMPTY: Self = Self(null_mut());

    /// Lets all go on. Any context but NMI, no lock of level 80 or more held.
    pub fn complete(self) {
        let mut next = self.0;
        while let Some(waiter) = NonNull::new(next) {
            // SAFETY: it stays until it is done. Read before it is.
            let waiter = unsafe { waiter.as_ref() };
            next = waiter.next.load(Ordering::Relaxed);
            waiter.done.complete();
        }
    }
}
