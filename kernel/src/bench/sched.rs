//! Time and interrupts: what threads, locks and RCU are built on.

use core::hint::black_box;

use super::{Outcome, Run, Stop, bench};
use crate::arch::{apic, irq};
use crate::{smp, time};

bench! {
    name: "sched/empty_loop",
    ops: 1_000_000,
    run: empty_loop,
}

bench! {
    name: "sched/irqs_off_on",
    ops: 200_000,
    run: irqs_off_on,
}

bench! {
    name: "sched/timer_programming",
    ops: 50_000,
    run: timer_programming,
}

bench! {
    name: "sched/ipi_round_trip",
    ops: 10_000,
    cpus: 2,
    run: ipi_round_trip,
}

/// What an operation costs that does nothing: the loop of all other workloads. It shows
/// that the harness adds nothing of its own, which is exact where instructions are counted.
fn empty_loop(run: &mut Run) -> Outcome {
    let ops = run.ops();
    run.time(|| {
        for _ in 0..ops {
            // Empty, but the loop may not be left out for it.
            black_box(());
        }
    });
    Ok(())
}

/// Interrupts off and back to what they were, by the guard that the kernel uses.
fn irqs_off_on(run: &mut Run) -> Outcome {
    let ops = run.ops();
    run.time(|| {
        for _ in 0..ops {
            drop(irq::disable());
        }
    });
    Ok(())
}

/// Arming this CPU's one-shot timer, which was armed already.
fn timer_programming(run: &mut Run) -> Outcome {
    /// Far enough not to ring before it is armed again.
    const LATER_NS: u64 = 1_000_000_000;
    const PATIENCE_NS: u64 = 10_000_000_000;
    let ops = run.ops();
    run.time(|| {
        for _ in 0..ops {
            apic::arm_timer(LATER_NS);
        }
    });
    // Ring now, not in the middle of what is measured next.
    let rings = || smp::ipi_counts(smp::this_cpu()).timer;
    let (before, start) = (rings(), time::now_ns());
    apic::arm_timer(1);
    while rings() == before {
        if time::now_ns() - start > PATIENCE_NS {
            return Err(Stop::Failed("the timer never rang".into()));
        }
        core::hint::spin_loop();
    }
    Ok(())
}

/// An empty call on another CPU, from asking for it until it is known to be done.
fn ipi_round_trip(run: &mut Run) -> Outcome {
    let Some(other) = smp::online().without(smp::this_cpu()).first() else {
        return Err(Stop::Skipped("there is no other CPU".into()));
    };
    let ops = run.ops();
    run.time(|| {
        for _ in 0..ops {
            smp::call_on(other, &|| {});
        }
    });
    Ok(())
}
