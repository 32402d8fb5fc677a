//! The sleeping lock that readers share.
//!
//! How many read, whether one writes, and who waits for either lie under one spin lock. A
//! thread that waits is let in by whoever makes room for it, before it runs: its holding is
//! counted when its entry is taken out of the list.
//!
//! | state | a reader comes | a writer comes | the (last) holder goes |
//! |---|---|---|---|
//! | free | reading | writing | |
//! | reading, no writer waits | reading | waits | free |
//! | reading, writers wait | waits | waits | writing (the first writer) |
//! | writing | waits | waits | reading (*all* readers that wait), else writing (the first writer), else free |
//!
//! A downgrade is the end of writing with one reader already in: all readers that wait join
//! it. If the last writer that waits gives up while others read, all readers that wait are
//! let in.
//!
//! # Fairness
//!
//! Readers wait only while somebody writes, or while some read and a writer waits. Either way
//! at most one writer is let in before them. A writer that finds k writers waiting is
//! overtaken by none, and waits for these k and at most k + 1 batches of readers: who reads
//! now, and those who wait at the end of each writing. Readers that come later wait behind it.

use core::{
    fmt,
    marker::PhantomData,
    mem::{self, ManuallyDrop},
    ops::{Deref, DerefMut},
    ptr,
};

use super::{
    WaitLists, acquired,
    list::{Waiters, sleep_until_woken},
    released,
};
use crate::{
    LockKind, Mark, Platform,
    lock::{Class, Held, IrqSpinLock, assert_above},
    sync::{Cell, Exclusive, Shared, const_unless_model},
};

/// A lock around a `T`, for several readers or one writer, whose waiters sleep, and whose
/// holders may. Threads only. A thread that reads may not read again: a writer could wait in
/// between.
///
/// Fair: a waiting writer keeps new readers out; when it is done, all readers that wait by
/// then go before the next writer.
pub struct RwSemaphore<T, P: Platform, C: Class> {
    state: IrqSpinLock<State<P>, P, WaitLists>,
    value: Cell<T>,
    class: PhantomData<fn(C)>,
}

// SAFETY: the lock gives the value to one writer, or shares it among readers.
unsafe impl<T: Send + Sync, P: Platform, C: Class> Sync for RwSemaphore<T, P, C> {}
// SAFETY: it owns its value.
unsafe impl<T: Send, P: Platform, C: Class> Send for RwSemaphore<T, P, C> {}

struct State<P: Platform> {
    readers: usize,
    writing: bool,
    waiting_readers: Waiters<P>,
    waiting_writers: Waiters<P>,
}

impl<P: Platform> State<P> {
    /// Lets a reader in, if it need not wait.
    fn try_read(&mut self) -> bool {
        // Readers do not wait without a reason to, so none is overtaken.
        let may = !self.writing && self.waiting_writers.is_empty();
        if may {
            self.readers += 1;
        }
        may
    }

    /// Lets a writer in, if it need not wait.
    fn try_write(&mut self) -> bool {
        let may = !self.writing && self.readers == 0;
        if may {
            self.writing = true;
        }
        may
    }

    /// Lets all readers in that wait. Nobody writes.
    fn let_readers_in(&mut self) {
        self.readers += self.waiting_readers.wake_all();
    }

    /// Lets the first writer in if nobody holds the lock.
    fn let_writer_in(&mut self) {
        if !self.writing && self.readers == 0 {
            self.writing = self.waiting_writers.wake_first();
        }
    }
}

impl<T, P: Platform, C: Class> RwSemaphore<T, P, C> {
    const_unless_model! {
        /// A free lock around `value`.
        pub fn new(value: T) -> Self {
            Self {
                state: IrqSpinLock::new(State {
                    readers: 0,
                    writing: false,
                    waiting_readers: Waiters::new(),
                    waiting_writers: Waiters::new(),
                }),
                value: Cell::new(value),
                class: PhantomData,
            }
        }
    }

    /// Takes the lock to read; sleeps while a writer has it or waits for it. May sleep.
    #[track_caller]
    pub fn read(&self) -> ReadGuard<'_, T, P, C> {
        self.prepare(LockKind::SleepShared);
        self.wait_to_read(None);
        self.read_guard()
    }

    /// [`read`](Self::read), while holding `outer`: compiles only if that is the lock order.
    /// May sleep.
    #[track_caller]
    pub fn read_under<H: Held>(&self, _outer: &H) -> ReadGuard<'_, T, P, C> {
        assert_above::<C, H::Class>();
        self.read()
    }

    /// [`read`](Self::read), but sleeps at most until [`Platform::now_ns`] is `deadline_ns`.
    /// May sleep.
    #[track_caller]
    #[must_use = "the deadline may have come first"]
    pub fn read_timeout(&self, deadline_ns: u64) -> Option<ReadGuard<'_, T, P, C>> {
        self.prepare(LockKind::SleepShared);
        if self.wait_to_read(Some(deadline_ns)) {
            return Some(self.read_guard());
        }
        released::<P, C>(self.address());
        None
    }

    /// Takes the lock to read if that needs no wait. Does not sleep; but threads only.
    #[track_caller]
    #[must_use = "a writer may have the lock, or wait for it"]
    pub fn try_read(&self) -> Option<ReadGuard<'_, T, P, C>> {
        P::mark(Mark::Lock);
        if !self.state.lock().try_read() {
            return None;
        }
        acquired::<P, C>(self.address(), LockKind::SleepShared, true, 0);
        Some(self.read_guard())
    }

    /// Takes the lock to write; sleeps while others have it. May sleep.
    #[track_caller]
    pub fn write(&self) -> WriteGuard<'_, T, P, C> {
        self.prepare(LockKind::Sleep);
        self.wait_to_write(None);
        self.write_guard()
    }

    /// [`write`](Self::write), while holding `outer`: compiles only if that is the lock
    /// order. May sleep.
    #[track_caller]
    pub fn write_under<H: Held>(&self, _outer: &H) -> WriteGuard<'_, T, P, C> {
        assert_above::<C, H::Class>();
        self.write()
    }

    /// [`write`](Self::write), but sleeps at most until [`Platform::now_ns`] is
    /// `deadline_ns`. May sleep.
    #[track_caller]
    #[must_use = "the deadline may have come first"]
    pub fn write_timeout(&self, deadline_ns: u64) -> Option<WriteGuard<'_, T, P, C>> {
        self.prepare(LockKind::Sleep);
        if self.wait_to_write(Some(deadline_ns)) {
            return Some(self.write_guard());
        }
        released::<P, C>(self.address());
        None
    }

    /// Takes the lock to write if that needs no wait. Does not sleep; but threads only.
    #[track_caller]
    #[must_use = "others may have the lock"]
    pub fn try_write(&self) -> Option<WriteGuard<'_, T, P, C>> {
        P::mark(Mark::Lock);
        if !self.state.lock().try_write() {
            return None;
        }
        acquired::<P, C>(self.address(), LockKind::Sleep, true, 0);
        Some(self.write_guard())
    }

    /// The value; that this borrow is exclusive shows that nobody holds the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// How many writers and readers wait. For those who watch: may be out of date at once.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.waiting_writers.len(), state.waiting_readers.len())
    }

    #[track_caller]
    fn prepare(&self, kind: LockKind) {
        P::mark(Mark::Lock);
        // Before the wait: what would deadlock is reported, too. And that this may sleep: the
        // checker looks whether it may.
        acquired::<P, C>(self.address(), kind, false, 0);
    }

    fn wait_to_read(&self, deadline_ns: Option<u64>) -> bool {
        let mut state = self.state.lock();
        if state.try_read() {
            return true;
        }
        let (state, let_in) = sleep_until_woken(
            &self.state,
            state,
            |state| &mut state.waiting_readers,
            deadline_ns,
        );
        drop(state);
        let_in
    }

    fn wait_to_write(&self, deadline_ns: Option<u64>) -> bool {
        let mut state = self.state.lock();
        if state.try_write() {
            return true;
        }
        let (mut state, let_in) = sleep_until_woken(
            &self.state,
            state,
            |state| &mut state.waiting_writers,
            deadline_ns,
        );
        if !let_in && !state.writing && state.waiting_writers.is_empty() {
            // Readers wait for nobody any more.
            state.let_readers_in();
        }
        let_in
    }

    fn end_read(&self) {
        let mut state = self.state.lock();
        state.readers -= 1;
        state.let_writer_in();
        drop(state);
        P::mark(Mark::Unlock);
    }

    fn end_write(&self) {
        let mut state = self.state.lock();
        state.writing = false;
        state.let_readers_in();
        state.let_writer_in();
        drop(state);
        P::mark(Mark::Unlock);
    }

    fn read_guard(&self) -> ReadGuard<'_, T, P, C> {
        ReadGuard {
            value: ManuallyDrop::new(self.value.shared()),
            lock: self,
        }
    }

    fn write_guard(&self) -> WriteGuard<'_, T, P, C> {
        WriteGuard {
            value: ManuallyDrop::new(self.value.exclusive()),
            lock: self,
        }
    }

    fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }
}

impl<T, P: Platform, C: Class> fmt::Debug for RwSemaphore<T, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwSemaphore")
            .field("class", &C::class().name)
            .finish_non_exhaustive()
    }
}

/// Evidence that a [`RwSemaphore`] is held to read, and the way to its value. Dropping it
/// gives the lock back.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct ReadGuard<'a, T, P: Platform, C: Class> {
    lock: &'a RwSemaphore<T, P, C>,
    /// Dropped by hand, before the lock is given back. Makes the guard `!Send`.
    value: ManuallyDrop<Shared<T>>,
}

/// Evidence that a [`RwSemaphore`] is held to write, and the way to its value. Dropping it
/// gives the lock back.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct WriteGuard<'a, T, P: Platform, C: Class> {
    lock: &'a RwSemaphore<T, P, C>,
    /// Dropped by hand, before the lock is given back. Makes the guard `!Send`.
    value: ManuallyDrop<Exclusive<T>>,
}

// SAFETY: a shared guard gives only shared references to the value.
unsafe impl<T: Sync, P: Platform, C: Class> Sync for ReadGuard<'_, T, P, C> {}
// SAFETY: as above.
unsafe impl<T: Sync, P: Platform, C: Class> Sync for WriteGuard<'_, T, P, C> {}

impl<T, P: Platform, C: Class> Held for ReadGuard<'_, T, P, C> {
    type Class = C;
}

impl<T, P: Platform, C: Class> Held for WriteGuard<'_, T, P, C> {
    type Class = C;
}

impl<'a, T, P: Platform, C: Class> WriteGuard<'a, T, P, C> {
    /// Goes on reading, without letting a writer in between. Readers that wait are let in,
    /// too. Does not sleep.
    #[track_caller]
    pub fn downgrade(mut this: Self) -> ReadGuard<'a, T, P, C> {
        let lock = this.lock;
        // SAFETY: not used after this; `this` is forgotten.
        unsafe { ManuallyDrop::drop(&mut this.value) };
        mem::forget(this);
        released::<P, C>(lock.address());
        acquired::<P, C>(lock.address(), LockKind::SleepShared, true, 0);
        let mut state = lock.state.lock();
        state.writing = false;
        state.readers = 1;
        state.let_readers_in();
        drop(state);
        lock.read_guard()
    }
}

impl<T, P: Platform, C: Class> Deref for ReadGuard<'_, T, P, C> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held to read, so nobody writes.
        unsafe { self.value.get() }
    }
}

impl<T, P: Platform, C: Class> Deref for WriteGuard<'_, T, P, C> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held to write, and only the guard's holder can ask.
        unsafe { self.value.get() }
    }
}

impl<T, P: Platform, C: Class> DerefMut for WriteGuard<'_, T, P, C> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed exclusively.
        unsafe { self.value.get_mut() }
    }
}

impl<T, P: Platform, C: Class> Drop for ReadGuard<'_, T, P, C> {
    fn drop(&mut self) {
        // SAFETY: not used after this.
        unsafe { ManuallyDrop::drop(&mut self.value) };
        released::<P, C>(self.lock.address());
        self.lock.end_read();
    }
}

impl<T, P: Platform, C: Class> Drop for WriteGuard<'_, T, P, C> {
    fn drop(&mut self) {
        // SAFETY: not used after this.
        unsafe { ManuallyDrop::drop(&mut self.value) };
        released::<P, C>(self.lock.address());
        self.lock.end_write();
    }
}

impl<T: fmt::Debug, P: Platform, C: Class> fmt::Debug for ReadGuard<'_, T, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Debug, P: Platform, C: Class> fmt::Debug for WriteGuard<'_, T, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
