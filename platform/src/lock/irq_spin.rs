//! The spin lock that interrupt handlers may take.

use super::{Spin, SpinningGuard};
use crate::IrqsOff;

/// A spin lock with interrupts off: for what interrupt handlers use, too. Not in NMI, but
/// for [`try_lock`](Spin::try_lock); a holder may not sleep.
///
/// While a CPU waits its interrupts are off, so a holder must be quick, and may not wait for
/// another CPU to take an interrupt. [`Spin`] has the functions.
pub type IrqSpinLock<T, P, C> = Spin<T, P, C, IrqsOff<P>>;

/// What [`IrqSpinLock`] gives out.
pub type IrqSpinGuard<'a, T, P, C> = SpinningGuard<'a, T, P, C, IrqsOff<P>>;
