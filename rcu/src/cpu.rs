//! What the engine has of each CPU.

use core::sync::atomic::AtomicU64 as Statistic;

use platform::{
    lock::IrqSpinLock,
    lock_class,
    sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use crate::{
    Machine, barrier,
    callbacks::{List, Segment},
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
    pub callbacks: IrqSpinLock<Callbacks, M, CallbackLock>,
    /// Callbacks that have not been run, as `callbacks` says, for those without the lock.
    pub pending: AtomicUsize,
    /// The cookie that ripens next, as `callbacks` says; `COMPLETED`: none waits for one.
    due: AtomicU64,
    /// Its thread that runs callbacks.
    pub thread: IrqSpinLock<Option<M::Thread>, M, CallbackThread>,
    pub barrier: barrier::CpuHead<M>,
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
    /// Queued so far, to name what waits every now and then.
    pub pushed: usize,
    /// The last cookie that was asked for.
    pub requested: Cookie,
}

impl<M: Machine> Cpu<M> {
    pub fn new() -> Self {
        Self {
            wanted: AtomicU32::new(0),
            callbacks: IrqSpinLock::new(Callbacks {
                list: List::new(),
                running: 0,
                pushed: 0,
                requested: Cookie::COMPLETED,
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
