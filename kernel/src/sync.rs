//! Locks.

use core::ops::{Deref, DerefMut};

use spin::mutex::{SpinMutex, SpinMutexGuard};

use crate::arch::irq::{self, IrqGuard};

/// A spin lock that keeps interrupts off on the CPU that holds it, so that a handler on the
/// same CPU can never wait for what it interrupted. Task and interrupt context; not NMI.
#[derive(Debug, Default)]
pub struct IrqLock<T>(SpinMutex<T>);

/// Access to what an [`IrqLock`] protects.
#[derive(Debug)]
pub struct IrqLockGuard<'a, T> {
    // Dropped in this order: unlock, then interrupts.
    value: SpinMutexGuard<'a, T>,
    _irqs_off: IrqGuard,
}

impl<T> IrqLock<T> {
    /// An unlocked lock.
    pub const fn new(value: T) -> Self {
        Self(SpinMutex::new(value))
    }

    /// Turns interrupts off and waits for the lock.
    pub fn lock(&self) -> IrqLockGuard<'_, T> {
        let irqs_off = irq::disable();
        IrqLockGuard {
            value: self.0.lock(),
            _irqs_off: irqs_off,
        }
    }

    /// The lock, if it is free now. Any context.
    pub fn try_lock(&self) -> Option<IrqLockGuard<'_, T>> {
        let irqs_off = irq::disable();
        Some(IrqLockGuard {
            value: self.0.try_lock()?,
            _irqs_off: irqs_off,
        })
    }
}

impl<T> Deref for IrqLockGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for IrqLockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
