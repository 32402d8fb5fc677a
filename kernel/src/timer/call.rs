//! Timers that call a function.

use alloc::{boxed::Box, sync::Arc};
use core::{fmt, ptr, sync::atomic::Ordering};

use super::base::{self, Kind, TimerNode};
use crate::{arch::preempt, heap, sched, smp};

/// What an armed, expired or running timer keeps alive by one reference.
struct Inner {
    node: TimerNode,
    function: Box<dyn Fn() + Send + Sync>,
}

/// A timer that calls a function once for each time it is armed and not cancelled. The
/// function runs on the CPU that armed the timer, as a soft interrupt: it may not sleep. It
/// may arm the timer again.
///
/// Dropping it cancels it; a function that runs meanwhile goes on to its end.
pub struct Timer(Arc<Inner>);

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timer").field(&self.0.node).finish()
    }
}

impl Timer {
    /// A timer that is not armed. `None`: no memory. Task context.
    pub fn new(function: impl Fn() + Send + Sync + 'static) -> Option<Self> {
        let function: Box<dyn Fn() + Send + Sync> = heap::try_box(function)?;
        heap::try_arc(Inner {
            node: TimerNode::new(Kind::Call),
            function,
        })
        .map(Self)
    }

    /// Calls the function once [`time::now_ns`](crate::time::now_ns) is `deadline_ns`. One
    /// that is armed gets the new deadline. `true` if it was armed already. Any context but
    /// NMI.
    pub fn arm(&self, deadline_ns: u64) -> bool {
        let _pinned = sched::Pinned::disable();
        let inner = Arc::into_raw(Arc::clone(&self.0));
        self.0
            .node
            .target
            .store(inner.cast_mut().cast(), Ordering::Relaxed);
        // SAFETY: the reference just made keeps node and function until whoever takes the
        // node out of a tree drops it.
        let was_armed = unsafe { base::arm(&self.0.node, deadline_ns) };
        if was_armed {
            // The node was in a tree already, by an older reference.
            // SAFETY: the one that was just made.
            drop(unsafe { Arc::from_raw(inner) });
        }
        was_armed
    }

    /// The function is not called any more for the last [`arm`](Self::arm), unless it runs
    /// already. `true` if that prevented a call. Any context but NMI.
    pub fn cancel(&self) -> bool {
        let removed = base::lock_of(&self.0.node).is_some_and(|mut base| base.remove(&self.0.node));
        if removed {
            // SAFETY: the tree's reference, which is ours since we took the node out.
            drop(unsafe { Arc::from_raw(Arc::as_ptr(&self.0)) });
        }
        removed
    }

    /// [`cancel`](Self::cancel), and waits until a call that runs is over. What the function
    /// did is seen then. Task context; not from the function itself, nor with a lock held
    /// that it takes.
    pub fn cancel_sync(&self) -> bool {
        debug_assert_eq!(preempt::context(), platform::Context::Task);
        loop {
            let removed = self.cancel();
            let running =
                base::lock_of(&self.0.node).is_some_and(|base| ptr::eq(base.running, &self.0.node));
            if !running {
                return removed;
            }
            sched::yield_now();
        }
    }

    /// Whether it waits for its deadline, or its function is about to be called.
    pub fn is_armed(&self) -> bool {
        base::pending(&self.0.node)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The soft interrupt: calls the functions of timers that have expired on this CPU.
pub fn run_expired() {
    let cpu = smp::this_cpu();
    loop {
        let Some(node) = base::lock(cpu).start_expired() else {
            return;
        };
        // SAFETY: the tree's reference keeps the node, and is ours now.
        let inner = unsafe {
            let target = (*node).target.load(Ordering::Relaxed);
            Arc::from_raw(target.cast_const().cast::<Inner>())
        };
        (inner.function)();
        // Under the lock: who sees that it does not run sees what it did.
        base::lock(cpu).running = ptr::null();
    }
}
