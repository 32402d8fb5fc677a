//! The sleeping lock.
//!
//! A word says whether the lock is held and whether anybody waits; without waiters it is
//! taken and given back by one atomic instruction each. Waiters are in a list under a spin
//! lock, first in, first out, and stay in it until they have the lock or give up.
//!
//! | word | meaning | who leaves it |
//! |---|---|---|
//! | 0 | free | anybody, to `LOCKED` (Acquire) |
//! | `LOCKED` | held | the holder, to 0 (Release); a waiter, to both bits |
//! | both | held, and some wait | under the list's lock: the holder, to `WAITERS`, and wakes the first, or gives the lock to it; the last waiter that goes, to `LOCKED` |
//! | `WAITERS` | free, and the first was woken | anybody, to both (Acquire), the first or who just comes by; the first alone, to `LOCKED` |
//!
//! `WAITERS` is set exactly while the list is not empty, but inside sections of the list's
//! lock. Two facts make that no wake-up is lost: a holder that finds `WAITERS` goes through
//! the list's lock; and while the lock is free and the list is not empty, the first has been
//! woken, and has not looked since, or is about to.
//!
//! # Fairness
//!
//! When the lock becomes free, threads that run may take it before the woken one does: that
//! keeps the lock in use meanwhile. But only once for each first waiter: if the holder finds
//! on giving back that the first has been woken before, then it has lost to somebody, and the
//! lock is *handed over*: it stays `LOCKED`, and the first is its holder. So a thread that
//! finds k others in the list is overtaken by at most k + 1 acquisitions of threads that
//! came later: at most one for each time that there is a new first, itself included.

use core::{
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    ptr,
};

use super::{
    WaitLists, acquired,
    list::{Linked, Waiter, Waiters},
    released,
};
use crate::{
    LockKind, Mark, Platform,
    lock::{Class, Held, IrqSpinLock, assert_above},
    sync::{AtomicU32, Cell, Exclusive, Ordering, const_unless_model},
};

const LOCKED: u32 = 1;
const WAITERS: u32 = 2;

/// A lock around a `T` whose waiters sleep, and whose holder may. Threads only.
///
/// First in, first out, but that a thread in the list may be overtaken by up to k + 1
/// acquisitions of threads that came later, if it found k threads there (see the source).
pub struct Mutex<T, P: Platform, C: Class> {
    word: AtomicU32,
    waiters: IrqSpinLock<Waiters<P>, P, WaitLists>,
    value: Cell<T>,
    class: PhantomData<fn(C)>,
}

// SAFETY: the lock hands its value from thread to thread, one at a time.
unsafe impl<T: Send, P: Platform, C: Class> Sync for Mutex<T, P, C> {}
// SAFETY: it owns its value.
unsafe impl<T: Send, P: Platform, C: Class> Send for Mutex<T, P, C> {}

impl<T, P: Platform, C: Class> Mutex<T, P, C> {
    const_unless_model! {
        /// A free lock around `value`.
        pub fn new(value: T) -> Self {
            Self {
                word: AtomicU32::new(0),
                waiters: IrqSpinLock::new(Waiters::new()),
                value: Cell::new(value),
                class: PhantomData,
            }
        }
    }

    /// Takes the lock; sleeps while another thread has it. May sleep.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T, P, C> {
        self.lock_nested(0)
    }

    /// [`lock`](Self::lock), while holding other locks of the class (which must say
    /// `nests`): `nesting` is 1 for the second of them, and so on. May sleep.
    #[inline]
    #[track_caller]
    pub fn lock_nested(&self, nesting: u8) -> MutexGuard<'_, T, P, C> {
        self.prepare(nesting);
        if !self.take() {
            self.wait(None);
        }
        self.guard()
    }

    /// [`lock`](Self::lock), while holding `outer`: compiles only if that is the lock order.
    /// May sleep.
    #[inline]
    #[track_caller]
    pub fn lock_under<H: Held>(&self, _outer: &H) -> MutexGuard<'_, T, P, C> {
        assert_above::<C, H::Class>();
        self.lock_nested(0)
    }

    /// [`lock`](Self::lock), but sleeps at most until [`Platform::now_ns`] is `deadline_ns`.
    /// May sleep.
    #[track_caller]
    #[must_use = "the deadline may have come first"]
    pub fn lock_timeout(&self, deadline_ns: u64) -> Option<MutexGuard<'_, T, P, C>> {
        self.prepare(0);
        if self.take() || self.wait(Some(deadline_ns)) {
            return Some(self.guard());
        }
        released::<P, C>(self.address());
        None
    }

    /// Takes the lock if it is free. Does not sleep; but threads only.
    #[inline]
    #[track_caller]
    #[must_use = "another thread may have the lock"]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T, P, C>> {
        P::mark(Mark::Lock);
        if !self.take() {
            return None;
        }
        acquired::<P, C>(self.address(), LockKind::Sleep, true, 0);
        Some(self.guard())
    }

    /// Whether any thread holds the lock. For those who watch: may be out of date at once.
    pub fn is_locked(&self) -> bool {
        // Relaxed: nothing is concluded from it.
        self.word.load(Ordering::Relaxed) & LOCKED != 0
    }

    /// Whether any thread waits for the lock. For those who watch: may be out of date at
    /// once.
    pub fn is_contended(&self) -> bool {
        // Relaxed: nothing is concluded from it.
        self.word.load(Ordering::Relaxed) & WAITERS != 0
    }

    /// How many threads wait for the lock. For those who watch: may be out of date at once.
    pub fn waiting(&self) -> usize {
        self.waiters.lock().len()
    }

    /// The value; that this borrow is exclusive shows that nobody holds the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    #[inline]
    #[track_caller]
    fn prepare(&self, nesting: u8) {
        P::mark(Mark::Lock);
        // Before the wait: what would deadlock is reported, too. And that this may sleep: the
        // checker looks whether it may.
        acquired::<P, C>(self.address(), LockKind::Sleep, false, nesting);
    }

    /// Takes the lock if it is free, even if others wait.
    #[inline]
    fn take(&self) -> bool {
        // Acquire: what earlier holders did is seen. If it is held already, nothing changes.
        self.word.fetch_or(LOCKED, Ordering::Acquire) & LOCKED == 0
    }

    /// Waits in the list until this thread has the lock. `false`: the deadline came first.
    #[cold]
    fn wait(&self, deadline_ns: Option<u64>) -> bool {
        let waiter = Waiter::new();
        let mut waiters = self.waiters.lock();
        // SAFETY: settled or dropped below.
        let linked = unsafe { Linked::link(&self.waiters, &mut waiters, |list| list, &waiter) };
        let has_lock = loop {
            if !waiters.contains(&waiter) {
                // Handed over. What earlier holders did is seen by way of the list's lock.
                break true;
            }
            // Only the first; the others' bit is set. In one step with the look at `LOCKED`:
            // either it is free, or its holder will find the bit. Acquire: as in `take`.
            if waiters.is_first(&waiter)
                && self.word.fetch_or(LOCKED | WAITERS, Ordering::Acquire) & LOCKED == 0
            {
                break true;
            }
            if deadline_ns.is_some_and(|deadline| P::now_ns() >= deadline) {
                break false;
            }
            drop(waiters);
            Waiter::<P>::park(deadline_ns);
            waiters = self.waiters.lock();
        };
        linked.settled(&mut waiters);
        self.clear_waiters_if_none(&waiters);
        has_lock
    }

    /// To be called under the list's lock when an entry was taken out of it.
    fn clear_waiters_if_none(&self, waiters: &Waiters<P>) {
        if waiters.is_empty() {
            // Relaxed: the bit alone tells nobody about data.
            self.word.fetch_and(!WAITERS, Ordering::Relaxed);
        }
    }

    /// Gives the lock back.
    #[inline]
    fn unlock(&self) {
        // Release: the next holder sees what this one did.
        if self
            .word
            .compare_exchange(LOCKED, 0, Ordering::Release, Ordering::Relaxed)
            .is_err()
        {
            self.wake();
        }
        P::mark(Mark::Unlock);
    }

    #[cold]
    fn wake(&self) {
        let mut waiters = self.waiters.lock();
        match waiters.first() {
            Some(first) if first.is_woken() => {
                // It has been woken, and the lock was taken by another since.
                waiters.wake_first();
                self.clear_waiters_if_none(&waiters);
            }
            first => {
                // Release: as in `unlock`. Before the wake-up, so that the woken thread finds
                // the lock free. `None`: the last one gave up in the meantime.
                self.word.fetch_and(!LOCKED, Ordering::Release);
                if let Some(first) = first {
                    Waiters::wake(first);
                }
            }
        }
    }

    fn guard(&self) -> MutexGuard<'_, T, P, C> {
        MutexGuard {
            value: ManuallyDrop::new(self.value.exclusive()),
            lock: self,
        }
    }

    fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }
}

impl<T, P: Platform, C: Class> fmt::Debug for Mutex<T, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex")
            .field("class", &C::class().name)
            .field("locked", &self.is_locked())
            .finish_non_exhaustive()
    }
}

/// Evidence that a [`Mutex`] is held, and the way to its value. Dropping it gives the lock
/// back.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct MutexGuard<'a, T, P: Platform, C: Class> {
    lock: &'a Mutex<T, P, C>,
    /// Dropped by hand, before the lock is given back. Makes the guard `!Send`.
    value: ManuallyDrop<Exclusive<T>>,
}

// SAFETY: a shared guard gives only shared references to the value.
unsafe impl<T: Sync, P: Platform, C: Class> Sync for MutexGuard<'_, T, P, C> {}

impl<T, P: Platform, C: Class> Held for MutexGuard<'_, T, P, C> {
    type Class = C;
}

impl<T, P: Platform, C: Class> Deref for MutexGuard<'_, T, P, C> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held, and only the guard's holder can ask for the value.
        unsafe { self.value.get() }
    }
}

impl<T, P: Platform, C: Class> DerefMut for MutexGuard<'_, T, P, C> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed exclusively.
        unsafe { self.value.get_mut() }
    }
}

impl<T, P: Platform, C: Class> Drop for MutexGuard<'_, T, P, C> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: not used after this.
        unsafe { ManuallyDrop::drop(&mut self.value) };
        released::<P, C>(self.lock.address());
        self.lock.unlock();
    }
}

impl<T: fmt::Debug, P: Platform, C: Class> fmt::Debug for MutexGuard<'_, T, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
