//! The processor's interrupt flag, as a guard.

use core::marker::PhantomData;

use ::x86_64::instructions::interrupts;

use super::preempt;

/// Evidence that interrupts are off on this CPU. Dropping it restores what was before.
#[derive(Debug)]
#[must_use = "interrupts come back on when the guard is dropped"]
pub struct IrqGuard {
    was_on: bool,
    /// Interrupt state belongs to a CPU.
    not_send: PhantomData<*mut ()>,
}

/// Turns interrupts off until the guard is dropped. Guards nest.
#[inline]
pub fn disable() -> IrqGuard {
    let was_on = interrupts::are_enabled();
    interrupts::disable();
    IrqGuard {
        was_on,
        not_send: PhantomData,
    }
}

/// Turns interrupts off; whether they were on.
#[inline(always)]
pub fn save() -> bool {
    let were_on = interrupts::are_enabled();
    interrupts::disable();
    were_on
}

/// Turns interrupts on if they were.
#[inline(always)]
pub fn restore(were_on: bool) {
    if were_on {
        interrupts::enable();
    }
}

/// Whether this CPU takes interrupts now.
#[inline]
pub fn enabled() -> bool {
    interrupts::are_enabled()
}

/// Turns interrupts on. Only start-up and idle code do that outright; others use guards.
pub fn enable() {
    interrupts::enable();
}

/// Turns interrupts off where no guard can: at the end of an interrupt.
pub fn disable_here() {
    interrupts::disable();
}

/// Turns interrupts off for good: a CPU that will not go on.
pub fn disable_forever() {
    interrupts::disable();
}

/// Waits for an interrupt with interrupts on; no wake-up between the check that the caller
/// made with them off and the wait is lost. Returns with them on.
pub fn enable_and_wait() {
    interrupts::enable_and_hlt();
}

impl Drop for IrqGuard {
    #[inline]
    fn drop(&mut self) {
        if self.was_on {
            interrupts::enable();
            // A thread that was made ready meanwhile may go first.
            if preempt::switch_due() {
                crate::sched::preempt();
            }
        }
    }
}
