//! Locks, generic over the [`Platform`](crate::Platform).
//!
//! | lock | turns off | waits | for |
//! |---|---|---|---|
//! | [`SpinLock`] | preemption | spins | threads only |
//! | [`IrqSpinLock`] | interrupts, preemption | spins | threads and interrupt handlers |
//! | [`LocalLock`] | preemption | never | data of one CPU, all contexts on it |
//! | [`SeqLock`] | to write: interrupts, preemption | spins | a few words, read by all |
//!
//! Every lock has a [`Class`], a type that names it and gives its place in the lock order.
//! The order is checked when the program is compiled where the outer guard is at hand
//! ([`Spin::lock_under`]), and by the order checker at run time in builds that have one
//! ([`Platform::CHECK_LOCKS`](crate::Platform::CHECK_LOCKS)).

mod class;
mod held;
mod irq_spin;
mod local;
mod seq;
mod spin;
mod word;

pub use class::{Class, LockClass};
pub use held::{Held, assert_above};
pub use irq_spin::{IrqSpinGuard, IrqSpinLock};
pub use local::{LocalGuard, LocalLock, StolenGuard};
pub use seq::{SeqLock, Words};
pub use spin::{Pinned, Spin, SpinGuard, SpinLock, SpinningGuard};
