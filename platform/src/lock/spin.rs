//! Spinning locks: the data, the lock word before it, and guards.
//!
//! Taking a lock: preemption (for [`IrqSpinLock`](super::IrqSpinLock) interrupts, too) is
//! turned off, then the word is taken; giving it back goes the other way round, so nothing
//! that could want the lock on this CPU runs while it is held. What a holder does lies
//! between the Acquire that took the word and the Release that gives it back
//! (`lock/word.rs` has the states).

use core::{
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    panic::Location,
};

use super::{Class, Held, assert_above, word::LockWord};
use crate::{
    Acquisition, CpuId, IrqsOff, LockKind, Mark, Platform, Preempt,
    sync::{Cell, Exclusive, const_unless_model},
};

/// A spin lock with preemption off: for what only threads use. May not be taken in an
/// interrupt handler (it could have interrupted the holder), and a holder may not sleep.
///
/// Costs one locked instruction and, with the guard's end, one store. [`Spin`] has the
/// functions.
pub type SpinLock<T, P, C> = Spin<T, P, C, Preempt<P>>;

/// What [`SpinLock`] gives out.
pub type SpinGuard<'a, T, P, C> = SpinningGuard<'a, T, P, C, Preempt<P>>;

/// What a spinning lock turns off, as a guard: [`Preempt`] or [`IrqsOff`].
pub trait Pinned<P: Platform> {
    /// What the order checker is told.
    const KIND: LockKind;

    /// Turns it off until the guard is dropped.
    fn off() -> Self;

    /// That preemption is off.
    fn preempt(&self) -> &Preempt<P>;
}

impl<P: Platform> Pinned<P> for Preempt<P> {
    const KIND: LockKind = LockKind::Spin;

    #[inline(always)]
    fn off() -> Self {
        Self::disable()
    }

    #[inline(always)]
    fn preempt(&self) -> &Preempt<P> {
        self
    }
}

impl<P: Platform> Pinned<P> for IrqsOff<P> {
    const KIND: LockKind = LockKind::IrqSpin;

    #[inline(always)]
    fn off() -> Self {
        Self::disable()
    }

    #[inline(always)]
    fn preempt(&self) -> &Preempt<P> {
        self.as_preempt()
    }
}

/// A spinning lock around a `T`; [`SpinLock`] and [`IrqSpinLock`](super::IrqSpinLock) are
/// the two there are. `C` is the class, `E` what is turned off while it is held.
pub struct Spin<T, P: Platform, C: Class, E: Pinned<P>> {
    word: LockWord,
    value: Cell<T>,
    types: PhantomData<fn(P, C, E)>,
}

// SAFETY: the lock hands its value from thread to thread, one at a time.
unsafe impl<T: Send, P: Platform, C: Class, E: Pinned<P>> Sync for Spin<T, P, C, E> {}
// SAFETY: it owns its value.
unsafe impl<T: Send, P: Platform, C: Class, E: Pinned<P>> Send for Spin<T, P, C, E> {}

impl<T, P: Platform, C: Class, E: Pinned<P>> Spin<T, P, C, E> {
    const_unless_model! {
        /// A free lock around `value`.
        pub fn new(value: T) -> Self {
            Self {
                word: LockWord::new(),
                value: Cell::new(value),
                types: PhantomData,
            }
        }
    }

    /// Takes the lock; spins while another CPU has it. Not in NMI, and not in interrupt
    /// handlers unless interrupts are off while it is held.
    ///
    /// # Panics
    ///
    /// If this CPU has the lock already.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> SpinningGuard<'_, T, P, C, E> {
        self.lock_nested(0)
    }

    /// [`lock`](Self::lock), while holding other locks of the class (which must say
    /// `nests`): `nesting` is 1 for the second of them, and so on. The caller has an order
    /// of its own among them, such as their addresses.
    ///
    /// # Panics
    ///
    /// If this CPU has the lock already.
    #[inline]
    #[track_caller]
    pub fn lock_nested(&self, nesting: u8) -> SpinningGuard<'_, T, P, C, E> {
        P::mark(Mark::Lock);
        let pinned = E::off();
        if P::CHECK_LOCKS {
            // Before the wait: what would deadlock is reported, too.
            P::lock_acquire(&self.acquisition(false, nesting, Location::caller()));
        }
        self.word.take::<P>(pinned.preempt().cpu(), C::class());
        self.guard(pinned)
    }

    /// [`lock`](Self::lock), while holding `outer`: compiles only if that is the lock
    /// order.
    ///
    /// # Panics
    ///
    /// If this CPU has the lock already.
    #[inline]
    #[track_caller]
    pub fn lock_under<H: Held>(&self, _outer: &H) -> SpinningGuard<'_, T, P, C, E> {
        assert_above::<C, H::Class>();
        self.lock_nested(0)
    }

    /// Takes the lock if it is free. Any context.
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<SpinningGuard<'_, T, P, C, E>> {
        P::mark(Mark::Lock);
        let pinned = E::off();
        if !self.word.try_take(pinned.preempt().cpu()) {
            return None;
        }
        if P::CHECK_LOCKS {
            P::lock_acquire(&self.acquisition(true, 0, Location::caller()));
        }
        Some(self.guard(pinned))
    }

    /// Gives back a lock whose guard was forgotten: for a scheduler, which takes a run
    /// queue's lock in one thread and gives it back in the next. What the guard turned off
    /// stays off.
    ///
    /// # Safety
    ///
    /// A guard of this lock was forgotten on this CPU, for each call of this function one,
    /// and nobody uses the value that it gave.
    pub unsafe fn force_unlock(&self) {
        self.release(P::current_cpu);
    }

    /// Whether the lock is held, and by which CPU. For those who watch: may be out of date
    /// at once. Any context.
    pub fn holder(&self) -> Option<CpuId> {
        self.word.holder()
    }

    /// The value, without the lock: for who looks at a machine that stands still.
    ///
    /// # Safety
    ///
    /// Nobody changes the value while the reference lives: all CPUs but this one are stopped,
    /// or all who take the lock are known to rest.
    pub unsafe fn peek(&self) -> &T {
        let access = self.value.shared();
        // SAFETY: as the caller promises; the value lives as long as the lock.
        unsafe { &*core::ptr::from_ref(access.get()) }
    }

    /// The value; that this borrow is exclusive shows that nobody holds the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    #[inline(always)]
    fn guard(&self, pinned: E) -> SpinningGuard<'_, T, P, C, E> {
        SpinningGuard {
            value: ManuallyDrop::new(self.value.exclusive()),
            lock: self,
            pinned,
        }
    }

    #[inline(always)]
    fn release(&self, cpu: impl FnOnce() -> CpuId) {
        if P::CHECK_LOCKS {
            P::lock_release(C::class(), core::ptr::from_ref(self).addr());
        }
        self.word.give_back::<P>(cpu, C::class());
        P::mark(Mark::Unlock);
    }

    fn acquisition(
        &self,
        is_try: bool,
        nesting: u8,
        at: &'static Location<'static>,
    ) -> Acquisition {
        Acquisition {
            class: C::class(),
            lock: core::ptr::from_ref(self).addr(),
            kind: E::KIND,
            is_try,
            nesting,
            at,
        }
    }
}

impl<T: fmt::Debug, P: Platform, C: Class, E: Pinned<P>> fmt::Debug for Spin<T, P, C, E> {
    /// Shows who holds the lock, not the value: that would take the lock, and reports are
    /// written where that may not be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spin")
            .field("class", &C::class().name)
            .field("word", &self.word)
            .finish_non_exhaustive()
    }
}

/// Evidence that a spinning lock is held, and the way to its value. Dropping it gives the
/// lock back, and then turns on what was off.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct SpinningGuard<'a, T, P: Platform, C: Class, E: Pinned<P>> {
    lock: &'a Spin<T, P, C, E>,
    /// Dropped by hand, before the lock is given back. Makes the guard `!Send`.
    value: ManuallyDrop<Exclusive<T>>,
    /// A field: dropped after `drop` has run, so strictly after the lock was given back.
    pinned: E,
}

// SAFETY: a shared guard gives only shared references to the value.
unsafe impl<T: Sync, P: Platform, C: Class, E: Pinned<P>> Sync for SpinningGuard<'_, T, P, C, E> {}

impl<T, P: Platform, C: Class, E: Pinned<P>> SpinningGuard<'_, T, P, C, E> {
    /// That preemption is off, as it is while any spinning lock is held.
    #[inline(always)]
    pub fn preempt(this: &Self) -> &Preempt<P> {
        this.pinned.preempt()
    }

    /// What is turned off while this lock is held.
    #[inline(always)]
    pub fn pinned(this: &Self) -> &E {
        &this.pinned
    }
}

impl<T, P: Platform, C: Class, E: Pinned<P>> Held for SpinningGuard<'_, T, P, C, E> {
    type Class = C;
}

impl<T, P: Platform, C: Class, E: Pinned<P>> Deref for SpinningGuard<'_, T, P, C, E> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held, and only the guard's holder can ask for the value.
        unsafe { self.value.get() }
    }
}

impl<T, P: Platform, C: Class, E: Pinned<P>> DerefMut for SpinningGuard<'_, T, P, C, E> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed exclusively.
        unsafe { self.value.get_mut() }
    }
}

impl<T, P: Platform, C: Class, E: Pinned<P>> Drop for SpinningGuard<'_, T, P, C, E> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: not used after this.
        unsafe { ManuallyDrop::drop(&mut self.value) };
        let pinned = &self.pinned;
        self.lock.release(|| pinned.preempt().cpu());
    }
}

impl<T: fmt::Debug, P: Platform, C: Class, E: Pinned<P>> fmt::Debug
    for SpinningGuard<'_, T, P, C, E>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
