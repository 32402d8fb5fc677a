//! Timers: for each CPU a tree by deadline, and its one-shot interrupt set for the first.
//!
//! A timer never fires early. It fires on the CPU that armed it, or, if that has gone offline,
//! on the one that its timers went to. Two kinds:
//!
//! - *alarms* end the sleep of a thread; they fire in the interrupt, under the lock of the
//!   CPU's timers, so that who cancels an alarm knows that it is over;
//! - [`Timer`]s call a function, as a soft interrupt: interrupts on, preemption off. One
//!   timer's function never runs twice at a time.
//!
//! The tick is a deadline beside the tree, on CPUs that run a thread; an idle CPU has none.
//!
//! | state of a node | where | who moves it on |
//! |---|---|---|
//! | idle | nowhere | `arm`, to armed |
//! | armed | a CPU's `armed` tree | that CPU's interrupt, to expired (alarm: fired, idle); `cancel`, to idle |
//! | moving | nowhere: between two CPUs, and counts as armed | who moves it, to armed; others who arm or cancel it, which take it over |
//! | expired | a CPU's `expired` tree | that CPU's soft interrupt, to running; `cancel`, to idle |
//! | armed, expired | a CPU that goes offline | it, to armed, in another CPU's tree |
//! | running | `Base::running` | the soft interrupt, to idle; the function or another CPU may arm it again (on the same CPU) |
//!
//! All moves are made under the lock of the CPU's `Base`; a node says which that is, and
//! who locks looks again whether it still does.

mod base;
mod call;
mod raw;

pub use base::{
    TimerNode, arm_alarm, cancel_alarm, hand_over, interrupt, start_tick, stop_tick, watch,
};
pub use call::{Timer, run_expired};
pub use raw::{Raw, RawKind};

/// Nanoseconds of a tick; also a thread's turn. 250 a second, as Linux has by default.
pub const TICK_NS: u64 = 4_000_000;
