//! The interrupt sweep: an operation interrupted at every instruction of its length, by a
//! handler that may run the same operation again.
//!
//! On the `icount` machine a one-shot timer set for n counts interrupts after exactly n
//! instructions, so setting it for every n over the operation's length meets every place.
//! Elsewhere the places are met by chance, and the sweep is a stress test.

use core::{
    ptr,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
};

use platform::MAX_CPUS;

use crate::{
    smp,
    timer::{Raw, RawKind},
};

type Handler<'a> = &'a (dyn Fn() + Sync);

/// The handler of the sweep that runs on each CPU, by the address of the reference to it.
static HANDLERS: [AtomicPtr<Handler<'static>>; MAX_CPUS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS];
/// Interrupts that sweeps got on each CPU.
static TAKEN: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// What a sweep met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Times the operation was run.
    pub runs: u64,
    /// Interrupts that came while it ran or right after.
    pub interrupts: u64,
}

/// Runs `operation` once for each number of timer counts from `from` up to `to`, with an
/// interrupt of `kind` set to come after that many, whose handler runs `handler`. The CPU's
/// own timers stand still meanwhile.
pub fn sweep(
    kind: RawKind,
    from: u32,
    to: u32,
    handler: &(dyn Fn() + Sync),
    mut operation: impl FnMut(),
) -> Swept {
    let raw = Raw::take(kind);
    let own = smp::this_cpu().index();
    // Relaxed here and below: this CPU and its own interrupts only.
    let before = TAKEN[own].load(Ordering::Relaxed);
    let handler: Handler<'_> = handler;
    HANDLERS[own].store(ptr::from_ref(&handler).cast_mut().cast(), Ordering::Relaxed);
    let mut runs = 0;
    for counts in from..to {
        let taken = TAKEN[own].load(Ordering::Relaxed);
        raw.arm(counts.max(1));
        operation();
        runs += 1;
        // One that is later than the operation is waited for, so that each run has its own.
        while TAKEN[own].load(Ordering::Relaxed) == taken {
            core::hint::spin_loop();
        }
    }
    raw.disarm();
    HANDLERS[own].store(ptr::null_mut(), Ordering::Relaxed);
    drop(raw);
    Swept {
        runs,
        interrupts: TAKEN[own].load(Ordering::Relaxed) - before,
    }
}

fn run_handler() -> bool {
    let own = smp::this_cpu().index();
    let handler = HANDLERS[own].load(Ordering::Relaxed);
    // SAFETY: `sweep`, which the interrupt came into, keeps the reference alive until it has
    // taken the pointer out again.
    let Some(handler) = (unsafe { handler.as_ref() }) else {
        return false;
    };
    handler();
    TAKEN[own].fetch_add(1, Ordering::Relaxed);
    true
}

/// The sweep's interrupt.
pub fn interrupt() {
    run_handler();
}

/// An NMI: whether it was a sweep's.
pub fn nmi() -> bool {
    run_handler()
}
