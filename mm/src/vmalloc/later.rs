//! Frees from where nothing may be locked: a list that needs no memory of its own.
//!
//! An entry lies in the area's descriptor, or in the first bytes of the memory that is being
//! freed. It is pushed by compare-and-exchange, in any context, and the list is taken as a
//! whole by a thread that may sleep, so an interrupt in the middle of either does no harm.
//!
//! | an entry is | left by |
//! |---|---|
//! | its owner's | `push`: fills it in and links it (Release) |
//! | linked | `take`: unlinks all (Acquire) |
//! | the taker's | the taker reads it, then frees the area it lies in |

use core::ptr::{NonNull, null_mut};

use platform::sync::{AtomicPtr, AtomicUsize, Ordering};

/// An entry.
pub(super) struct Later {
    next: AtomicPtr<Later>,
    /// Of the area's memory.
    address: AtomicUsize,
    /// Who freed it: a `Location`.
    caller: AtomicUsize,
}

impl Later {
    pub(super) fn new() -> Self {
        Self {
            next: AtomicPtr::new(null_mut()),
            address: AtomicUsize::new(0),
            caller: AtomicUsize::new(0),
        }
    }
}

/// The list.
pub(super) struct List {
    head: AtomicPtr<Later>,
}

impl List {
    pub(super) fn new() -> Self {
        Self {
            head: AtomicPtr::new(null_mut()),
        }
    }

    /// Whether there is nothing to do; may be out of date at once.
    pub(super) fn is_empty(&self) -> bool {
        // Relaxed: `take` looks again.
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Links an entry; `true` if the list was empty. Any context.
    ///
    /// # Safety
    ///
    /// The entry is valid, on no list, and stays where it is until it was taken.
    pub(super) unsafe fn push(
        &self,
        entry: NonNull<Later>,
        address: usize,
        caller: &'static core::panic::Location<'static>,
    ) -> bool {
        // SAFETY: valid, says the caller.
        let later = unsafe { entry.as_ref() };
        // Relaxed, all three: published by the exchange.
        later.address.store(address, Ordering::Relaxed);
        let caller = core::ptr::from_ref(caller).expose_provenance();
        later.caller.store(caller, Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            later.next.store(head, Ordering::Relaxed);
            // Release pairs with the Acquire in `take`: what the entry says is seen, and
            // everything that was done with the memory came before it is taken away.
            match self.head.compare_exchange_weak(
                head,
                entry.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return head.is_null(),
                Err(now) => head = now,
            }
        }
    }

    /// Takes the whole list and calls `f` with the address and the caller of each entry,
    /// which may be gone after that.
    pub(super) fn take(&self, mut f: impl FnMut(usize, &'static core::panic::Location<'static>)) {
        // Acquire pairs with the Release in `push`.
        let mut next = self.head.swap(null_mut(), Ordering::Acquire);
        while let Some(entry) = NonNull::new(next) {
            // SAFETY: entries stay until they were taken (contract of `push`).
            let entry = unsafe { entry.as_ref() };
            // Relaxed, all three: the chain is this thread's alone.
            next = entry.next.load(Ordering::Relaxed);
            let address = entry.address.load(Ordering::Relaxed);
            let caller = entry.caller.load(Ordering::Relaxed);
            // SAFETY: `push` put a location there.
            let caller = unsafe { &*core::ptr::with_exposed_provenance(caller) };
            f(address, caller);
        }
    }
}
