//! Deferred work that may be queued from anywhere, NMI included: a function that soon runs
//! in an interrupt of the CPU that queued it.
//!
//! A [`Work`] lies in its user's structure. [`queue`] needs no memory and takes no lock: it
//! claims the item by one read-modify-write of its state, puts it on the own CPU's [`List`]
//! (a stack, pushed to by compare-and-exchange and taken as a whole, so that an NMI in the
//! middle of either does no harm) and raises an interrupt if the list was empty. The handler
//! calls [`List::run`], which runs all items, oldest first.
//!
//! | state | the item is | left by |
//! |---|---|---|
//! | `IDLE` | its owner's | `queue`: to `PENDING`, then links it |
//! | `PENDING` | linked, or about to be by the one who set the bit | the runner that took it off its list: to `BUSY` |
//! | `BUSY` | running, on no list | the runner, after the function: to `IDLE`; `queue`: to `BUSY+PENDING`, links nothing |
//! | `BUSY+PENDING` | running, and to run once more | the runner, after the function: to `PENDING`, then links it on its own CPU's list |
//!
//! So an item is linked at most once and never runs on two CPUs at a time: who finds it
//! running leaves the second run to the runner (it is then the runner's CPU that does it).
//! An item may be queued from inside its own function; the second run is another interrupt,
//! not a loop in this one.
//!
//! Every `queue`, also one that returns false, is followed by a run that sees what came
//! before the `queue`: it always writes the state (Release), only read-modify-writes follow
//! until the runner takes it to `BUSY` (Acquire), and these carry the release on.
//!
//! The runner's last access to an item is the one that takes `BUSY` off (Release). [`sync`]
//! waits for `IDLE` (Acquire): what the function did is seen after it, and the owner may free
//! the item. An item whose end nobody waits for has a [`Function::release`] instead, called
//! after that last access: it drops a reference, or frees the item.
//!
//! The interrupt cannot be lost: a push onto an empty list raises one after the push, and
//! `run` takes all that was pushed before it looked. One that was pushed and run before it
//! was raised finds an empty list. All of that happens on one CPU; the list's orders are for
//! those who run another CPU's list in its stead, as the model does.

use core::{
    fmt,
    ops::Deref,
    ptr::{NonNull, null_mut},
};

use crate::{
    Context, Platform, Preempt,
    sync::{AtomicPtr, AtomicU32, Ordering, const_unless_model},
};

const IDLE: u32 = 0;
const PENDING: u32 = 1;
const BUSY: u32 = 2;

/// What an item does.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// Runs in interrupt context, with the pointer that was given to [`queue`]. Must not
    /// free the item.
    pub run: unsafe fn(NonNull<Work>),
    /// Called after each `run`, when the item is not touched any more: gives back what
    /// [`queue`] was given with the item, such as a reference. May free the item if nobody
    /// can have queued it again.
    pub release: Option<unsafe fn(NonNull<Work>)>,
}

/// An item of deferred work. See the module.
pub struct Work {
    state: AtomicU32,
    /// The next older item, while linked. Written by the linker, read by the runner.
    next: AtomicPtr<Work>,
    function: Function,
}

impl Work {
    const_unless_model! {
        /// An idle item.
        pub fn new(function: Function) -> Self {
            Self {
                state: AtomicU32::new(IDLE),
                next: AtomicPtr::new(null_mut()),
                function,
            }
        }
    }

    /// Whether the item is neither pending nor running. What its runs did is seen by whoever
    /// gets `true`. Any context.
    pub fn is_idle(&self) -> bool {
        // Acquire pairs with the Release in `run_one`.
        self.state.load(Ordering::Acquire) == IDLE
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Lets the model checker see that the last access by others comes before the end.
#[cfg(model)]
impl Drop for Work {
    fn drop(&mut self) {
        self.state.with_mut(|state| assert_eq!(*state, IDLE));
        self.next.with_mut(|_| {});
    }
}

/// A CPU's list of deferred work: pushed to by its owner (from any context), and taken by
/// its owner's interrupt.
#[derive(Debug)]
pub struct List {
    /// The newest.
    head: AtomicPtr<Work>,
}

impl List {
    const_unless_model! {
        /// An empty list.
        pub fn new() -> Self {
            Self {
                head: AtomicPtr::new(null_mut()),
            }
        }
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        // Relaxed: a guess, or the CPU's own last word.
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Links an item; `true` if the list was empty.
    ///
    /// # Safety
    ///
    /// The caller took the item to `PENDING` and has not linked it.
    unsafe fn push(&self, work: NonNull<Work>) -> bool {
        // Relaxed: the exchange below checks what was read.
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: a pending item stays where it is (contract of `queue`).
            let next = unsafe { &(*work.as_ptr()).next };
            // Relaxed: published by the exchange.
            next.store(head, Ordering::Relaxed);
            // Release pairs with the Acquire in `run_with`: `next` is seen.
            match self.head.compare_exchange_weak(
                head,
                work.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return head.is_null(),
                Err(now) => head = now,
            }
        }
    }

    /// Runs all items on the list, oldest first. By the interrupt that
    /// [`Platform::raise_deferred`] raised, on the CPU whose list it is.
    pub fn run<P: Platform>(&self) {
        self.run_with(P::raise_deferred);
    }

    /// [`run`](Self::run) for a list that is not [`Platform::deferred`]: `raise` shall lead
    /// to another call of this function.
    pub fn run_with(&self, raise: impl Fn()) {
        // Acquire pairs with the Release in `push`.
        let mut newest = self.head.swap(null_mut(), Ordering::Acquire);
        let mut oldest: *mut Work = null_mut();
        while let Some(work) = NonNull::new(newest) {
            // SAFETY: an item is pending, and so stays, until `run_one` below.
            let link = unsafe { &(*work.as_ptr()).next };
            // Relaxed: linked items of a taken chain are this run's alone.
            newest = link.load(Ordering::Relaxed);
            link.store(oldest, Ordering::Relaxed);
            oldest = work.as_ptr();
        }
        while let Some(work) = NonNull::new(oldest) {
            // SAFETY: as above. Read before the item runs: then it may be linked again, or
            // gone.
            oldest = unsafe { &(*work.as_ptr()).next }.load(Ordering::Relaxed);
            // SAFETY: this run took the item off its list.
            unsafe { self.run_one(work, &raise) };
        }
    }

    /// Runs one item.
    ///
    /// # Safety
    ///
    /// The item is pending, and was unlinked by the caller.
    unsafe fn run_one(&self, work: NonNull<Work>, raise: &impl Fn()) {
        // SAFETY: neither a pending nor a busy item is freed (contract of `queue`). The
        // reference is not used after the last access below.
        let item = unsafe { &*work.as_ptr() };
        let function = item.function;
        // A swap: while PENDING the state can only be written with the same value. Acquire
        // pairs with the Release of every `queue` that this run stands for.
        let was = item.state.swap(BUSY, Ordering::Acquire);
        debug_assert_eq!(was, PENDING, "only a pending item is on a list");
        // SAFETY: whoever queued the item vouched for it.
        unsafe { (function.run)(work) };
        // Release pairs with the Acquires in `is_idle` and `queue_on`. The last access,
        // unless the item shall run once more.
        let was = item.state.fetch_and(!BUSY, Ordering::Release);
        debug_assert!(was & BUSY != 0, "only the runner ends a run");
        // SAFETY: PENDING was set while the item was BUSY: then its link is left to us.
        if was & PENDING != 0 && unsafe { self.push(work) } {
            raise();
        }
        if let Some(release) = function.release {
            // SAFETY: as for `run`; nothing here touches the item any more.
            unsafe { release(work) };
        }
    }
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

/// Queues an item on the CPU that runs this. `false`: it was pending already, and nothing
/// new was taken of the caller. Either way the function is going to run once more, and sees
/// what came before this. Any context, NMI too.
///
/// # Safety
///
/// The function may be called with `work` in interrupt context, on any CPU. The item stays
/// where it is, and is not used mutably, until it is idle again ([`sync`]) or was released
/// ([`Function::release`]); also until this call has returned, if other CPUs may queue it.
pub unsafe fn queue<P: Platform>(work: NonNull<Work>) -> bool {
    let _here = Preempt::<P>::disable();
    // SAFETY: as the caller promises.
    unsafe { queue_on(P::deferred(), work, P::raise_deferred) }
}

/// [`queue`] on a list that is not [`Platform::deferred`]; the caller stays on its CPU.
/// `raise` shall lead to [`List::run_with`].
///
/// # Safety
///
/// As for [`queue`].
pub unsafe fn queue_on(list: &List, work: NonNull<Work>, raise: impl FnOnce()) -> bool {
    // SAFETY: the item is there (contract).
    let item = unsafe { work.as_ref() };
    // Release pairs with the Acquire that takes the item to BUSY; written even if PENDING
    // is set, so that the run to come sees what came before. Acquire: what the last run read
    // of the item (its link) it read before.
    let was = item.state.fetch_or(PENDING, Ordering::AcqRel);
    if was == IDLE {
        // SAFETY: this call took the item to PENDING, with no runner to link it. After
        // the push it may run, and be gone, at any time.
        if unsafe { list.push(work) } {
            raise();
        }
    }
    was & PENDING == 0
}

/// Waits until the item is neither pending nor running; what its runs did is seen then, and
/// its owner may free it (unless it has a [`Function::release`], whose matter that is).
/// Nobody should go on queueing it.
///
/// Task context with interrupts on; spins, so the wait is as long as the interrupts of the
/// CPU that it was queued on are off, and as the functions queued there take. Not from a
/// function of deferred work: it could wait for itself (a debug build checks it).
pub fn sync<P: Platform>(work: &Work) {
    debug_assert!(
        P::context() == Context::Task && P::irqs_enabled(),
        "waits for deferred work where that cannot run"
    );
    while !work.is_idle() {
        P::relax();
    }
}

/// An item that is there for ever, with what its function works on; for statics.
#[repr(C)]
pub struct Deferred<T: Sync + 'static> {
    /// At the beginning: the item's address is the whole's.
    work: Work,
    function: fn(&'static Deferred<T>),
    value: T,
}

impl<T: Sync + 'static> Deferred<T> {
    const_unless_model! {
        /// An idle item that runs `function` in interrupt context.
        pub fn new(value: T, function: fn(&'static Deferred<T>)) -> Self {
            Self {
                work: Work::new(Function {
                    run: Self::run,
                    release: None,
                }),
                function,
                value,
            }
        }
    }

    /// Queues it on the CPU that runs this; see [`queue()`]. Any context, NMI too.
    pub fn queue<P: Platform>(&'static self) -> bool {
        // SAFETY: it is there for ever, never used mutably, and Sync.
        unsafe { queue::<P>(NonNull::from_ref(self).cast()) }
    }

    /// Waits until it neither is pending nor runs; see [`sync`].
    pub fn sync<P: Platform>(&self) {
        sync::<P>(&self.work);
    }

    /// # Safety
    ///
    /// `work` is that of a `Deferred<T>` that is there for ever.
    unsafe fn run(work: NonNull<Work>) {
        // SAFETY: as the caller promises; the pointer was made from the whole.
        let this: &'static Self = unsafe { work.cast::<Self>().as_ref() };
        (this.function)(this);
    }
}

impl<T: Sync + 'static> Deref for Deferred<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Sync + fmt::Debug + 'static> fmt::Debug for Deferred<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred")
            .field("work", &self.work)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}
