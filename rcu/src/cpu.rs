//! What the engine has of each CPU.

use core::sync::atomic::AtomicU64 as Statistic;

use platform::{
    lock::IrqSpinLock,
    lock_class,
    sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use crate::{
    Machine, barrier,
    callbacks::{List, Segment, arrivals::Arrivals},
    seq::Cookie,
};

lock_class! {
    /// A CPU's callbacks.
    pub struct CallbackLock = ("rcu callbacks", 87);
}

/// Bits of [`Cpu::wanted`]: a grace period of that kind waits for the CPU.
pub(crate) const NORMAL: u32 = 1;
pub(crate) const EXPEDITED: u32 = 2;
/// (Preemptible) the thread's section ended with preemption off: when that comes on, it is to
/// be taken off its leaf's list.
pub(crate) const UNBLOCK: u32 = 4;

/// What the engine has of a CPU.
pub(crate) struct Cpu<M: Machine> {
    /// What the CPU shall report to, a hint: set by who looks at it, cleared by the CPU
    /// before it reports, so that no wish is lost.
    pub wanted: AtomicU32,
    /// Callbacks that have been queued and are not in `callbacks` yet.
    pub arrivals: Arrivals,
    /// How often something was queued, about: of two additions at a time one is lost. Counted
    /// to take over what arrives every now and then.
    pub turns: Statistic,
    pub callbacks: IrqSpinLock<Callbacks, M, CallbackLock>,
    /// Callbacks that have not been run, as `callbacks` says, for those without the lock.
    pub pending: AtomicUsize,
    /// The cookie that ripens next, as `callbacks` says; `COMPLETED`: none waits for one.
    due: AtomicU64,
    /// Its thread that runs callbacks.
    pub thread: IrqSpinLock<Option<M::Thread>, M, CallbackThread>,
    pub barrier: barrier::CpuHead<M>,
    /// Callbacks that were taken over from `arrivals`. Changed under the lock of `callbacks`.
    pub queued: Statistic,
    pub invoked: Statistic,
}

lock_class! {
    /// The thread that runs a CPU's callbacks.
    pub struct CallbackThread = ("rcu callback thread", 89);
}

/// A CPU's callbacks, under its lock.
pub(crate) struct Callbacks {
    pub list: List,
    /// Taken off the list, and not run yet.
    pub running: usize,
    /// The last cookie that was asked for.
    pub requested: Cookie,
    /// Of the fault that runs callbacks too early: the last look did.
    #[cfg(debug_assertions)]
    pub early: bool,
}

impl<M: Machine> Cpu<M> {
    pub fn new() -> Self {
        Self {
            wanted: AtomicU32::new(0),
            arrivals: Arrivals::new(),
            turns: Statistic::new(0),
            callbacks: IrqSpinLock::new(Callbacks {
                list: List::new(),
                running: 0,
                requested: Cookie::COMPLETED,
                #[cfg(debug_assertions)]
                early: false,
            }),
            pending: AtomicUsize::new(0),
            due: AtomicU64::new(Cookie::COMPLETED.to_bits()),
            thread: IrqSpinLock::new(None),
            barrier: barrier::CpuHead::new(),
            queued: Statistic::new(0),
            invoked: Statistic::new(0),
        }
    }

    /// Tells those without the lock what changed. Under the lock.
    #[inline]
    pub fn publish(&self, callbacks: &Callbacks) {
        // Release pairs with the Acquire in the barrier: who finds 0 sees what the
        // callbacks did.
        self.pending
            .store(callbacks.list.len() + callbacks.running, Ordering::Release);
        let due = callbacks.list.due(Segment::Wait);
        // Relaxed: whoever ends the grace period looks after it had the leaf's lock, which
        // this CPU takes after this, to ask for the grace period.
        self.due.store(
            due.unwrap_or(Cookie::COMPLETED).to_bits(),
            Ordering::Relaxed,
        );
    }

    /// Whether there are no callbacks: those that the caller knows of have been run, and what
    /// they did is seen. For those without the lock; callbacks may not move from CPU to CPU
    /// meanwhile.
    ///
    /// Somebody took them over after they were pushed, since the word of `arrivals` is back at
    /// *idle*. Before that it was published that they were pending; later, that nothing is.
    #[inline]
    pub fn has_none(&self) -> bool {
        // In this order. Acquire pairs with the Release in `publish`.
        self.arrivals.is_idle() && self.pending.load(Ordering::Acquire) == 0
    }

    /// The cookie that ripens next.
    pub fn due(&self) -> Option<Cookie> {
        let due = Cookie::from_bits(self.due.load(Ordering::Relaxed));
        (due != Cookie::COMPLETED).then_some(due)
    }

    /// Lets its thread look at the callbacks, and at what is wanted of the engine. `false`:
    /// there is none yet. Any context but NMI.
    pub fn wake(&self) -> bool {
        let thread = self.thread.lock();
        thread
            .as_ref()
            .inspect(|thread| M::unpark(thread))
            .is_some()
    }
}
