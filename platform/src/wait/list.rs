//! The list of waiters, and the wait itself.

use core::{mem, ptr};

use super::WaitLists;
use crate::{
    Platform,
    lock::{IrqSpinGuard, IrqSpinLock},
    sync::{AtomicBool, Cell, Ordering},
};

/// One thread's wait, on that thread's stack.
pub(super) struct Waiter<P: Platform> {
    thread: P::Thread,
    /// It was woken, and for this wait. Written under the list's lock.
    woken: AtomicBool,
    /// Guarded by the list's lock.
    links: Cell<Links<P>>,
}

struct Links<P: Platform> {
    next: *const Waiter<P>,
    previous: *const Waiter<P>,
    /// Its place among all that ever waited here, from 1; 0 before it was linked.
    turn: u64,
    linked: bool,
}

impl<P: Platform> Waiter<P> {
    /// An entry, in no list, for the thread that runs this.
    pub(super) fn new() -> Self {
        Self {
            thread: P::current_thread(),
            woken: AtomicBool::new(false),
            links: Cell::new(Links {
                next: ptr::null(),
                previous: ptr::null(),
                turn: 0,
                linked: false,
            }),
        }
    }

    /// Whether it was woken. Certain under the lock; else a `false` may be out of date, but
    /// then the thread's next park returns.
    pub(super) fn is_woken(&self) -> bool {
        // Acquire pairs with the Release in `wake`, for a wait queue's condition; all others
        // look under the lock.
        self.woken.load(Ordering::Acquire)
    }

    /// Parks until this is woken; may return earlier.
    pub(super) fn park(deadline_ns: Option<u64>) {
        match deadline_ns {
            None => P::park(),
            Some(deadline) => P::park_until(deadline),
        }
    }
}

#[cfg(model)]
impl<P: Platform> Drop for Waiter<P> {
    /// For the model checker: nobody may use the entry any more.
    fn drop(&mut self) {
        let _end = self.links.exclusive();
    }
}

/// Entries in the order in which they shall be woken. Lies under an `IrqSpinLock`; every
/// entry in it is alive.
pub(super) struct Waiters<P: Platform> {
    first: *const Waiter<P>,
    last: *const Waiter<P>,
    turns: u64,
}

// SAFETY: the entries it points to are used only under the lock that this lies under (their
// links), or are shared words and handles (the rest).
unsafe impl<P: Platform> Send for Waiters<P> {}

impl<P: Platform> Waiters<P> {
    /// An empty list.
    pub(super) const fn new() -> Self {
        Self {
            first: ptr::null(),
            last: ptr::null(),
            turns: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// How many there are. For those who watch: looks at each.
    pub(super) fn len(&self) -> usize {
        let mut count = 0;
        let mut entry = self.first;
        while !entry.is_null() {
            count += 1;
            entry = self.next_of(entry);
        }
        count
    }

    /// The entry whose turn it is.
    pub(super) fn first(&self) -> Option<&Waiter<P>> {
        // SAFETY: linked entries are alive (contract of `link`), and cannot go while the
        // lock is held, which the borrow of this list shows.
        unsafe { self.first.as_ref() }
    }

    pub(super) fn is_first(&self, waiter: &Waiter<P>) -> bool {
        ptr::eq(self.first, waiter)
    }

    /// Adds an entry that is in no list: behind all others, or where it was, if it has been
    /// linked here before.
    ///
    /// # Safety
    ///
    /// The entry must stay where it is until it was unlinked, by
    /// [`unlink`](Self::unlink) or a waker, and its thread has then had this list's lock.
    pub(super) unsafe fn link(&mut self, waiter: &Waiter<P>) {
        let links = waiter.links.exclusive();
        // SAFETY: this list's lock is held; so for all links below.
        let links = unsafe { links.get_mut() };
        debug_assert!(!links.linked, "an entry is linked once");
        if links.turn == 0 {
            self.turns += 1;
            links.turn = self.turns;
        }
        // From behind, since most entries are new. One that was woken for nothing goes
        // before those that came later.
        let mut previous = self.last;
        while !previous.is_null() {
            // SAFETY: linked entries are alive.
            let access = unsafe { &*previous }.links.shared();
            // SAFETY: under the lock.
            let before = unsafe { access.get() };
            if before.turn < links.turn {
                break;
            }
            previous = before.previous;
        }
        let next = self.next_of(previous);
        links.previous = previous;
        links.next = next;
        links.linked = true;
        // Relaxed: under the lock.
        waiter.woken.store(false, Ordering::Relaxed);
        self.set_next(previous, waiter);
        self.set_previous(next, waiter);
    }

    /// Takes an entry out that is in this list.
    pub(super) fn unlink(&mut self, waiter: &Waiter<P>) {
        let (previous, next) = {
            let links = waiter.links.exclusive();
            // SAFETY: this list's lock is held.
            let links = unsafe { links.get_mut() };
            debug_assert!(links.linked, "only what is linked is unlinked");
            links.linked = false;
            (links.previous, links.next)
        };
        self.set_next(previous, next);
        self.set_previous(next, previous);
    }

    /// Whether an entry is in this list.
    pub(super) fn contains(&self, waiter: &Waiter<P>) -> bool {
        let links = waiter.links.shared();
        // SAFETY: this list's lock is held.
        unsafe { links.get() }.linked
    }

    /// Wakes the first and takes it out. `false`: there was none.
    pub(super) fn wake_first(&mut self) -> bool {
        let first = self.first;
        // SAFETY: linked entries are alive, and this one's thread needs the lock, which is
        // held, to go on.
        let Some(waiter) = (unsafe { first.as_ref() }) else {
            return false;
        };
        self.unlink(waiter);
        Self::wake(waiter);
        true
    }

    /// Wakes all and takes them out. How many.
    pub(super) fn wake_all(&mut self) -> usize {
        let mut woken = 0;
        while self.wake_first() {
            woken += 1;
        }
        woken
    }

    /// Wakes an entry of a list whose lock is held, and leaves it where it is.
    pub(super) fn wake(waiter: &Waiter<P>) {
        // For the model checker: the entry is in use.
        let _in_use = waiter.links.shared();
        // Release: see `is_woken`. Before the token, so that who has the token sees the word.
        waiter.woken.store(true, Ordering::Release);
        P::unpark(&waiter.thread);
    }

    /// What follows an entry; the first, for null.
    fn next_of(&self, entry: *const Waiter<P>) -> *const Waiter<P> {
        // SAFETY: null or linked, so alive.
        let Some(entry) = (unsafe { entry.as_ref() }) else {
            return self.first;
        };
        let links = entry.links.shared();
        // SAFETY: under the lock.
        unsafe { links.get() }.next
    }

    /// Sets what follows an entry; the first, for null.
    fn set_next(&mut self, entry: *const Waiter<P>, next: *const Waiter<P>) {
        // SAFETY: null or linked, so alive.
        match unsafe { entry.as_ref() } {
            None => self.first = next,
            Some(entry) => {
                let links = entry.links.exclusive();
                // SAFETY: under the lock.
                unsafe { links.get_mut() }.next = next;
            }
        }
    }

    /// Sets what comes before an entry; the last, for null.
    fn set_previous(&mut self, entry: *const Waiter<P>, previous: *const Waiter<P>) {
        // SAFETY: null or linked, so alive.
        match unsafe { entry.as_ref() } {
            None => self.last = previous,
            Some(entry) => {
                let links = entry.links.exclusive();
                // SAFETY: under the lock.
                unsafe { links.get_mut() }.previous = previous;
            }
        }
    }
}

/// A linked entry's claim to be unlinked before its frame goes away, also if what happens
/// meanwhile unwinds (on a host).
pub(super) struct Linked<'a, P: Platform, S> {
    lock: &'a IrqSpinLock<S, P, WaitLists>,
    list: fn(&mut S) -> &mut Waiters<P>,
    waiter: &'a Waiter<P>,
}

impl<'a, P: Platform, S> Linked<'a, P, S> {
    /// Links an entry in the list that `list` finds in `state`.
    ///
    /// # Safety
    ///
    /// `state` is what `lock`, which is held, guards. The result must be dropped, or [`settled`](Self::settled); not forgotten.
    pub(super) unsafe fn link(
        lock: &'a IrqSpinLock<S, P, WaitLists>,
        state: &mut S,
        list: fn(&mut S) -> &mut Waiters<P>,
        waiter: &'a Waiter<P>,
    ) -> Self {
        // SAFETY: unlinked by `drop` or `settled`, under the lock. The entry is borrowed
        // till then.
        unsafe { list(state).link(waiter) };
        Self { lock, list, waiter }
    }

    /// Ends the claim under the lock: unlinks the entry if nobody has.
    pub(super) fn settled(self, state: &mut S) {
        self.unlink(state);
        mem::forget(self);
    }

    fn unlink(&self, state: &mut S) {
        let list = (self.list)(state);
        if list.contains(self.waiter) {
            list.unlink(self.waiter);
        }
    }
}

impl<P: Platform, S> Drop for Linked<'_, P, S> {
    fn drop(&mut self) {
        let mut guard = self.lock.lock();
        self.unlink(&mut guard);
    }
}

/// Sleeps until a waker has taken this thread's entry out of the list that `list` finds, or
/// `deadline_ns` has come. Gives the lock back meanwhile; has it again at the end. `false`:
/// the deadline came, and the entry was still there; it no longer is.
pub(super) fn sleep_until_woken<'a, P: Platform, S>(
    lock: &'a IrqSpinLock<S, P, WaitLists>,
    mut guard: IrqSpinGuard<'a, S, P, WaitLists>,
    list: fn(&mut S) -> &mut Waiters<P>,
    deadline_ns: Option<u64>,
) -> (IrqSpinGuard<'a, S, P, WaitLists>, bool) {
    let waiter = Waiter::new();
    // SAFETY: settled or dropped below.
    let linked = unsafe { Linked::link(lock, &mut guard, list, &waiter) };
    loop {
        drop(guard);
        Waiter::<P>::park(deadline_ns);
        guard = lock.lock();
        let woken = waiter.is_woken();
        if woken || deadline_ns.is_some_and(|deadline| P::now_ns() >= deadline) {
            linked.settled(&mut guard);
            return (guard, woken);
        }
    }
}
