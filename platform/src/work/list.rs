//! A list of items, linked through their states.

use core::ptr;

use alloc::sync::Arc;

use super::Work;
use crate::Platform;

/// Items of one pool, in one of its lists. Each has a reference here.
pub(super) struct List<P: Platform> {
    first: *const Work<P>,
    last: *const Work<P>,
}

// SAFETY: it owns references to items, which are `Send` and `Sync`.
unsafe impl<P: Platform> Send for List<P> {}

/// An item's links.
pub(super) struct Links<P: Platform> {
    next: *const Work<P>,
    previous: *const Work<P>,
}

impl<P: Platform> Links<P> {
    pub(super) const fn new() -> Self {
        Self {
            next: ptr::null(),
            previous: ptr::null(),
        }
    }
}

/// All functions that use items: the lock of the pool that this list is part of is held,
/// and it is the home of every item in the list and of the one given.
impl<P: Platform> List<P> {
    pub(super) const fn new() -> Self {
        Self {
            first: ptr::null(),
            last: ptr::null(),
        }
    }

    /// The first item.
    pub(super) fn first(&self) -> Option<&Work<P>> {
        // SAFETY: an item in the list is kept alive by the list's reference.
        unsafe { self.first.as_ref() }
    }

    /// Adds an item behind the last one for which `before` says so, looked for from the end.
    ///
    /// # Safety
    ///
    /// The lock is held, as said above, and the item is in no list.
    pub(super) unsafe fn insert_after(
        &mut self,
        item: Arc<Work<P>>,
        mut before: impl FnMut(&Work<P>) -> bool,
    ) {
        let mut previous = self.last;
        let mut next = ptr::null();
        // SAFETY: items in the list are alive.
        while let Some(there) = unsafe { previous.as_ref() } {
            if before(there) {
                break;
            }
            next = previous;
            // SAFETY: as the caller promises.
            previous = unsafe { there.with(|state| state.links.previous) };
        }
        let item = Arc::into_raw(item);
        // SAFETY: alive, and the lock is held, as the caller promises.
        unsafe { (*item).with(|state| state.links = Links { next, previous }) };
        // SAFETY: as the caller promises.
        unsafe {
            self.set_next(previous, item);
            self.set_previous(next, item);
        }
    }

    /// Takes an item out.
    ///
    /// # Safety
    ///
    /// The lock is held, as said above, and the item is in this list.
    pub(super) unsafe fn remove(&mut self, item: &Work<P>) -> Arc<Work<P>> {
        // SAFETY: as the caller promises.
        let Links { next, previous } =
            unsafe { item.with(|state| core::mem::replace(&mut state.links, Links::new())) };
        // SAFETY: as the caller promises.
        unsafe {
            self.set_next(previous, next);
            self.set_previous(next, previous);
        }
        // SAFETY: made by `into_raw` when it was added, and now in the list no more.
        unsafe { Arc::from_raw(item) }
    }

    /// Sets what follows an item; the first, for null.
    ///
    /// # Safety
    ///
    /// The lock is held, as said above, and the item is in this list.
    unsafe fn set_next(&mut self, item: *const Work<P>, next: *const Work<P>) {
        // SAFETY: null or in the list, so alive.
        match unsafe { item.as_ref() } {
            None => self.first = next,
            // SAFETY: as the caller promises.
            Some(item) => unsafe { item.with(|state| state.links.next = next) },
        }
    }

    /// Sets what comes before an item; the last, for null.
    ///
    /// # Safety
    ///
    /// The lock is held, as said above, and the item is in this list.
    unsafe fn set_previous(&mut self, item: *const Work<P>, previous: *const Work<P>) {
        // SAFETY: null or in the list, so alive.
        match unsafe { item.as_ref() } {
            None => self.last = previous,
            // SAFETY: as the caller promises.
            Some(item) => unsafe { item.with(|state| state.links.previous = previous) },
        }
    }
}
