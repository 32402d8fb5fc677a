//! The local try-lock: for data of one CPU that its threads and its interrupt handlers use.
//!
//! | state | meaning | who leaves it |
//! |---|---|---|
//! | free | nobody uses the value | code on the owning CPU, with preemption off |
//! | taken | one guard is out | the guard's end, on the same CPU |
//!
//! Taking it is: preemption off, look at the flag, set it. Two plain accesses do, without
//! an atomic read-modify-write, though an interrupt may come between them. All who take the
//! lock run on the one CPU, and what interrupts nests strictly there: an interrupt handler
//! (and an NMI in that) runs to its end before the code that it interrupted goes on, and
//! gives back what it took. So
//!
//! - one that comes before the flag is set finds it free, takes and gives back the lock, and
//!   leaves the flag as it was: the look that was made before is still true;
//! - one that comes after finds it taken, and must do without: try, never wait. Waiting
//!   could not help, as the holder does not run before the handler ends.
//!
//! A thread cannot come in between, since preemption is off until the lock is free again.
//!
//! Ordering: the flag and the value are used by one CPU only, whose own accesses appear to
//! it in program order (an interrupt is no exception). The compiler has to be kept from
//! moving accesses to the value out of the section: `compiler_fence`, Acquire after the
//! flag is set and Release before it is cleared. What a thread did here is seen by the next
//! thread on this CPU because that is the same CPU; a thread that goes to another CPU
//! takes its view along by the scheduler's locks.
//!
//! When all use of a structure is over its last owner may take the values of other CPUs
//! from where it is ([`LocalLock::steal`]), without asking those CPUs.

use core::{
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    panic::Location,
};

use super::{Class, Held};
use crate::{
    Acquisition, CpuId, LockKind, Mark, Platform, Preempt,
    percpu::PerCpu,
    sync::{AtomicU32, Cell, Exclusive, Ordering, compiler_fence, const_unless_model},
};

const FREE: u32 = 0;
const STOLEN: u32 = u32::MAX;

/// The flag of a lock that `cpu` holds: which CPU it is matters only to the check, so that
/// builds without one need not find it out.
#[inline(always)]
fn taken_by<P: Platform>(cpu: impl FnOnce() -> CpuId) -> u32 {
    if P::CHECK_LOCKS {
        cpu().number() + 1
    } else {
        1
    }
}

/// A value of one CPU, and whether it is in use; lies in a [`PerCpu`], by whose functions it
/// is taken. See the module.
pub struct LocalLock<T, P: Platform, C: Class> {
    taken: AtomicU32,
    value: Cell<T>,
    types: PhantomData<fn(P, C)>,
}

// SAFETY: the value is used by one at a time; which thread that is is not fixed.
unsafe impl<T: Send, P: Platform, C: Class> Sync for LocalLock<T, P, C> {}
// SAFETY: it owns its value.
unsafe impl<T: Send, P: Platform, C: Class> Send for LocalLock<T, P, C> {}

impl<T, P: Platform, C: Class> LocalLock<T, P, C> {
    const_unless_model! {
        /// A free lock around `value`.
        pub fn new(value: T) -> Self {
            Self {
                taken: AtomicU32::new(FREE),
                value: Cell::new(value),
                types: PhantomData,
            }
        }
    }

    /// Takes the lock if it is free.
    ///
    /// # Safety
    ///
    /// The lock belongs to the CPU that runs this, and preemption is off until it is given
    /// back.
    #[inline(always)]
    unsafe fn try_take(&self, at: &'static Location<'static>) -> bool {
        // Relaxed, as all accesses to the flag: see the module.
        if self.taken.load(Ordering::Relaxed) != FREE {
            return false;
        }
        // The interesting place for an interrupt.
        P::mark(Mark::Step);
        let taken = taken_by::<P>(P::current_cpu);
        self.taken.store(taken, Ordering::Relaxed);
        compiler_fence(Ordering::Acquire);
        if P::CHECK_LOCKS {
            P::lock_acquire(&Acquisition {
                class: C::class(),
                lock: core::ptr::from_ref(self).addr(),
                kind: LockKind::Local,
                is_try: true,
                nesting: 0,
                at,
            });
        }
        P::mark(Mark::Step);
        true
    }

    /// Takes the lock for one who is not on its CPU. `None`, after a report in builds that
    /// check locks: somebody holds it, against the promise below.
    ///
    /// # Safety
    ///
    /// Until the result is dropped nobody else takes this lock, and all who ever did came
    /// before (by some synchronisation that the caller knows of): what the lock belongs to
    /// is not in use any more.
    pub unsafe fn steal(&self) -> Option<StolenGuard<'_, T, P, C>> {
        let taken = self.taken.load(Ordering::Relaxed);
        if taken != FREE {
            let name = C::class().name;
            if P::CHECK_LOCKS {
                P::report(format_args!(
                    "local lock \"{name}\" is taken from its CPU while in use"
                ));
            }
            return None;
        }
        self.taken.store(STOLEN, Ordering::Relaxed);
        Some(StolenGuard {
            value: ManuallyDrop::new(self.value.exclusive()),
            lock: self,
        })
    }

    /// Whether the lock is held. For those who watch: may be out of date at once, but true
    /// on its own CPU with interrupts off.
    pub fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed) != FREE
    }

    /// The value, without the lock: for who looks at a machine that stands still.
    ///
    /// # Safety
    ///
    /// Nobody changes the value while the reference lives: the lock's CPU is stopped, or all
    /// who use it are known to rest.
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
    fn give_back(&self) {
        if P::CHECK_LOCKS {
            P::lock_release(C::class(), core::ptr::from_ref(self).addr());
            let taken = self.taken.load(Ordering::Relaxed);
            if taken != taken_by::<P>(P::current_cpu) {
                not_holder::<P>(C::class().name);
            }
        }
        P::mark(Mark::Step);
        compiler_fence(Ordering::Release);
        self.taken.store(FREE, Ordering::Relaxed);
        P::mark(Mark::Unlock);
    }
}

#[cold]
#[inline(never)]
fn not_holder<P: Platform>(name: &str) {
    let cpu = P::current_cpu();
    P::report(format_args!(
        "unlock by another CPU: cpu{cpu} gives back local lock \"{name}\", which it does not hold"
    ));
}

impl<T, P: Platform, C: Class> PerCpu<LocalLock<T, P, C>, P> {
    /// Takes the lock of the CPU that runs this, unless it is held: then by the code that
    /// this context has interrupted. Never waits. Any context.
    #[inline(always)]
    #[track_caller]
    pub fn try_lock_here(&self) -> Option<LocalGuard<'_, T, P, C>> {
        self.try_lock_in(|lock| lock)
    }
}

impl<S, P: Platform> PerCpu<S, P> {
    /// [`try_lock_here`](Self::try_lock_here) for a lock that is a part of what each CPU
    /// has: `lock` says which.
    ///
    /// # Panics
    ///
    /// If `lock` gives a lock that lies elsewhere. (With a field of `S` the check costs
    /// nothing: the compiler sees its answer.)
    #[inline(always)]
    #[track_caller]
    pub fn try_lock_in<T, C: Class>(
        &self,
        lock: impl FnOnce(&S) -> &LocalLock<T, P, C>,
    ) -> Option<LocalGuard<'_, T, P, C>> {
        P::mark(Mark::Lock);
        let preempt = Preempt::disable();
        let own: *const S = self.here(&preempt);
        // SAFETY: pinned by `preempt`, which goes into the guard; the value lives as long as
        // `self` is borrowed.
        let own = unsafe { &*own };
        let lock = lock(own);
        let offset = core::ptr::from_ref(lock)
            .addr()
            .wrapping_sub(core::ptr::from_ref(own).addr());
        assert!(
            offset < size_of::<S>().max(1),
            "the lock is not the CPU's own"
        );
        // SAFETY: it lies in the copy of the CPU that `preempt` pins this to.
        if !unsafe { lock.try_take(Location::caller()) } {
            return None;
        }
        Some(LocalGuard {
            value: ManuallyDrop::new(lock.value.exclusive()),
            lock,
            preempt,
        })
    }
}

/// Evidence that a local lock is held, and the way to its value. Dropping it gives the lock
/// back, and then turns preemption on.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct LocalGuard<'a, T, P: Platform, C: Class> {
    lock: &'a LocalLock<T, P, C>,
    /// Dropped by hand, before the lock is given back. Makes the guard `!Send`.
    value: ManuallyDrop<Exclusive<T>>,
    /// A field: dropped after `drop` has run, so strictly after the lock was given back.
    preempt: Preempt<P>,
}

// SAFETY: a shared guard gives only shared references to the value.
unsafe impl<T: Sync, P: Platform, C: Class> Sync for LocalGuard<'_, T, P, C> {}

impl<T, P: Platform, C: Class> LocalGuard<'_, T, P, C> {
    /// That preemption is off while the lock is held.
    #[inline(always)]
    pub fn preempt(this: &Self) -> &Preempt<P> {
        &this.preempt
    }
}

impl<T, P: Platform, C: Class> Held for LocalGuard<'_, T, P, C> {
    type Class = C;
}

impl<T, P: Platform, C: Class> Deref for LocalGuard<'_, T, P, C> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held, and only the guard's holder can ask for the value.
        unsafe { self.value.get() }
    }
}

impl<T, P: Platform, C: Class> DerefMut for LocalGuard<'_, T, P, C> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed exclusively.
        unsafe { self.value.get_mut() }
    }
}

impl<T, P: Platform, C: Class> Drop for LocalGuard<'_, T, P, C> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: not used after this.
        unsafe { ManuallyDrop::drop(&mut self.value) };
        self.lock.give_back();
    }
}

impl<T: fmt::Debug, P: Platform, C: Class> fmt::Debug for LocalGuard<'_, T, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A local lock of any CPU, held by the owner of a structure that is not in use any more.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct StolenGuard<'a, T, P: Platform, C: Class> {
    lock: &'a LocalLock<T, P, C>,
    value: ManuallyDrop<Exclusive<T>>,
}

impl<T, P: Platform, C: Class> Deref for StolenGuard<'_, T, P, C> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: nobody else uses the value (contract of `steal`).
        unsafe { self.value.get() }
    }
}

impl<T, P: Platform, C: Class> DerefMut for StolenGuard<'_, T, P, C> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed exclusively.
        unsafe { self.value.get_mut() }
    }
}

impl<T, P: Platform, C: Class> Drop for StolenGuard<'_, T, P, C> {
    fn drop(&mut self) {
        // SAFETY: not used after this.
        unsafe { ManuallyDrop::drop(&mut self.value) };
        // Relaxed: whoever uses the lock next does so by some synchronisation of the caller's.
        self.lock.taken.store(FREE, Ordering::Relaxed);
    }
}

impl<T: fmt::Debug, P: Platform, C: Class> fmt::Debug for StolenGuard<'_, T, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T, P: Platform, C: Class> fmt::Debug for LocalLock<T, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalLock")
            .field("class", &C::class().name)
            .field("taken", &self.is_taken())
            .finish_non_exhaustive()
    }
}
