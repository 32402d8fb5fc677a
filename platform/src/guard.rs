//! Guards: evidence that this CPU is not left, or not interrupted.

use core::marker::PhantomData;

use crate::{CpuId, Platform};

/// Evidence that preemption is off: the code stays on its CPU. Nests. Any context.
#[derive(Debug)]
#[must_use = "preemption comes back on when the guard is dropped"]
pub struct Preempt<P: Platform> {
    /// It belongs to a thread on a CPU.
    not_send: PhantomData<(*mut (), P)>,
}

impl<P: Platform> Preempt<P> {
    /// Turns preemption off until the guard is dropped.
    #[inline(always)]
    pub fn disable() -> Self {
        P::preempt_disable();
        Self {
            not_send: PhantomData,
        }
    }

    /// The CPU that this code stays on.
    #[inline(always)]
    pub fn cpu(&self) -> CpuId {
        P::current_cpu()
    }
}

impl<P: Platform> Drop for Preempt<P> {
    #[inline(always)]
    fn drop(&mut self) {
        P::preempt_enable();
    }
}

/// Evidence that interrupts are off on this CPU, and preemption with them. Nests. Any
/// context.
#[derive(Debug)]
#[must_use = "interrupts come back on when the guard is dropped"]
pub struct IrqsOff<P: Platform> {
    state: P::IrqState,
    /// Declared after the state: interrupts come on first, then preemption, so that a
    /// thread woken meanwhile is switched to at once.
    preempt: Preempt<P>,
}

impl<P: Platform> IrqsOff<P> {
    /// Turns interrupts off until the guard is dropped.
    #[inline(always)]
    pub fn disable() -> Self {
        let preempt = Preempt::disable();
        Self {
            state: P::irq_save(),
            preempt,
        }
    }

    /// The CPU that this code stays on.
    #[inline(always)]
    pub fn cpu(&self) -> CpuId {
        self.preempt.cpu()
    }

    /// That preemption is off, too.
    #[inline(always)]
    pub fn as_preempt(&self) -> &Preempt<P> {
        &self.preempt
    }
}

impl<P: Platform> Drop for IrqsOff<P> {
    #[inline(always)]
    fn drop(&mut self) {
        P::irq_restore(self.state);
    }
}
