//! What interrupts leave for later: soft interrupts, and work deferred from NMI.

use core::sync::atomic::{AtomicU64, Ordering};

use platform::{Context, CpuId, CpuMask, deferred::Deferred};

use crate::arch::{apic, interrupts::vector, irq, preempt};
use crate::kunit::{Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kskip, kunit_suite};
use crate::machine::Kernel;
use crate::softirq::{self, Kind};
use crate::timer::RawKind;
use crate::{sched, smp, sweep};

kunit_suite! {
    name: "deferred",
    setup: reset,
    teardown: no_test_function,
    cases: [
        soft_interrupt_runs_at_the_end => { over: OnlineCpus },
        soft_interrupt_from_a_thread,
        flood_goes_to_the_thread,
        work_runs_once_queued => { over: OnlineCpus },
        work_from_nmi,
        work_from_interrupts_everywhere,
        self_interrupt_beside_others,
    ],
}

static RAN: AtomicU64 = AtomicU64::new(0);
static IN_SOFTIRQ: AtomicU64 = AtomicU64::new(0);
static WITH_IRQS_ON: AtomicU64 = AtomicU64::new(0);
/// How often a function of the flood raises its own kind again.
static AGAIN: AtomicU64 = AtomicU64::new(0);

fn note() {
    IN_SOFTIRQ.fetch_add(
        u64::from(preempt::context() == Context::SoftIrq),
        Ordering::Relaxed,
    );
    WITH_IRQS_ON.fetch_add(u64::from(irq::enabled()), Ordering::Relaxed);
    if AGAIN.load(Ordering::Relaxed) > 0 {
        AGAIN.fetch_sub(1, Ordering::Relaxed);
        softirq::raise(Kind::Test);
    }
    // Last, Release: who waits for the count sees the rest.
    RAN.fetch_add(1, Ordering::Release);
}

fn reset(_: &mut Ctx) -> Outcome {
    softirq::set_test(Some(note));
    Ok(())
}

fn no_test_function(_: &mut Ctx) -> Outcome {
    softirq::set_test(None);
    Ok(())
}

fn clear() {
    for count in [&RAN, &IN_SOFTIRQ, &WITH_IRQS_ON, &AGAIN] {
        count.store(0, Ordering::Relaxed);
    }
}

/// Waits for a count; one that never comes is the runner's to tell.
fn wait_for(count: &AtomicU64, wanted: u64) {
    while count.load(Ordering::Acquire) < wanted {
        sched::sleep_ns(100_000);
    }
}

fn soft_interrupt_runs_at_the_end(_: &mut Ctx, cpu: CpuId) -> Outcome {
    clear();
    let inside = AtomicU64::new(0);
    smp::call_on(cpu, &|| {
        softirq::raise(Kind::Test);
        // Not before the end of the interrupt. (On the own CPU this is no interrupt.)
        inside.store(RAN.load(Ordering::Relaxed), Ordering::Relaxed);
    });
    wait_for(&RAN, 1);
    kassert_eq!(inside.load(Ordering::Relaxed), 0);
    kassert_eq!(IN_SOFTIRQ.load(Ordering::Relaxed), 1);
    kassert_eq!(WITH_IRQS_ON.load(Ordering::Relaxed), 1);
    Ok(())
}

fn soft_interrupt_from_a_thread(_: &mut Ctx) -> Outcome {
    clear();
    for wanted in 1..=20 {
        softirq::raise(Kind::Test);
        wait_for(&RAN, wanted);
    }
    kassert_eq!(RAN.load(Ordering::Relaxed), 20);
    kassert_eq!(IN_SOFTIRQ.load(Ordering::Relaxed), 20);
    Ok(())
}

/// A function that raises itself again for ever would keep the interrupted thread from ever
/// going on, were it not left to a thread after some rounds.
fn flood_goes_to_the_thread(_: &mut Ctx) -> Outcome {
    use crate::arch::percpu::PerCpuCell;
    clear();
    let cpu = smp::this_cpu();
    let before = softirq::RUN_IN_THREAD.on(cpu).load(Ordering::Relaxed);
    AGAIN.store(500, Ordering::Relaxed);
    apic::send_self(vector::RESCHEDULE);
    softirq::raise(Kind::Test);
    wait_for(&RAN, 501);
    kassert_eq!(RAN.load(Ordering::Relaxed), 501);
    let in_thread = softirq::RUN_IN_THREAD.on(cpu).load(Ordering::Relaxed) - before;
    kassert!(in_thread > 0, "none of them ran in the thread");
    Ok(())
}

static COUNTED: Deferred<AtomicU64> = Deferred::new(AtomicU64::new(0), |this| {
    // Release: who waits for the count sees the rest.
    this.fetch_add(1, Ordering::Release);
    CONTEXT.store(preempt::context() as u64, Ordering::Relaxed);
    WHERE.store(u64::from(smp::this_cpu().number()), Ordering::Relaxed);
});
static CONTEXT: AtomicU64 = AtomicU64::new(0);
static WHERE: AtomicU64 = AtomicU64::new(0);

fn work_runs_once_queued(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let before = COUNTED.load(Ordering::Acquire);
    let queued = AtomicU64::new(0);
    smp::call_on(cpu, &|| {
        // Twice before the interrupt can come: the second is one with the first.
        let first = COUNTED.queue::<Kernel>();
        let second = COUNTED.queue::<Kernel>();
        queued.store(u64::from(first) * 2 + u64::from(second), Ordering::Relaxed);
    });
    COUNTED.sync::<Kernel>();
    kassert_eq!(queued.load(Ordering::Relaxed), 2);
    kassert_eq!(COUNTED.load(Ordering::Acquire), before + 1);
    kassert_eq!(CONTEXT.load(Ordering::Relaxed), Context::HardIrq as u64);
    kassert_eq!(WHERE.load(Ordering::Relaxed), u64::from(cpu.number()));
    Ok(())
}

/// NMIs at every instruction of queueing the same item from a thread.
fn work_from_nmi(_: &mut Ctx) -> Outcome {
    static FROM_NMI: AtomicU64 = AtomicU64::new(0);
    static IN_NMI: AtomicU64 = AtomicU64::new(0);
    static ITEM: Deferred<AtomicU64> = Deferred::new(AtomicU64::new(0), |this| {
        this.fetch_add(1, Ordering::Release);
    });
    FROM_NMI.store(0, Ordering::Relaxed);
    IN_NMI.store(0, Ordering::Relaxed);
    let handler = || {
        IN_NMI.fetch_add(
            u64::from(preempt::context() == Context::Nmi),
            Ordering::Relaxed,
        );
        if ITEM.queue::<Kernel>() {
            FROM_NMI.fetch_add(1, Ordering::Relaxed);
        }
    };
    let before = ITEM.load(Ordering::Acquire);
    let mut from_thread = 0;
    let swept = sweep::sweep(RawKind::Nmi, 1, 600, &handler, || {
        from_thread += u64::from(ITEM.queue::<Kernel>());
    });
    ITEM.sync::<Kernel>();
    kassert_eq!(IN_NMI.load(Ordering::Relaxed), swept.interrupts);
    kassert!(swept.interrupts >= 599, "{swept:?}");
    // Each time that it was taken in it ran, once.
    let runs = ITEM.load(Ordering::Acquire) - before;
    kassert_eq!(runs, from_thread + FROM_NMI.load(Ordering::Relaxed));
    kassert!(FROM_NMI.load(Ordering::Relaxed) > 0);
    Ok(())
}

/// Every CPU queues the same item at once, from an interrupt.
fn work_from_interrupts_everywhere(_: &mut Ctx) -> Outcome {
    let before = COUNTED.load(Ordering::Acquire);
    let taken_in = AtomicU64::new(0);
    for _ in 0..200 {
        smp::call_all(&|| {
            taken_in.fetch_add(u64::from(COUNTED.queue::<Kernel>()), Ordering::Relaxed);
        });
    }
    COUNTED.sync::<Kernel>();
    let runs = COUNTED.load(Ordering::Acquire) - before;
    kassert_eq!(runs, taken_in.load(Ordering::Relaxed));
    kassert!(runs > 0);
    Ok(())
}

/// An NMI that raises the self-interrupt between the two writes of sending to another CPU
/// does not spoil that target.
fn self_interrupt_beside_others(_: &mut Ctx) -> Outcome {
    let Some(other) = smp::online().without(smp::this_cpu()).first() else {
        kskip!("there is only one CPU");
    };
    let before = smp::ipi_counts(other).call;
    let calls = AtomicU64::new(0);
    let handler = || {
        COUNTED.queue::<Kernel>();
    };
    let mut made = 0;
    sweep::sweep(RawKind::Nmi, 1, 2_000, &handler, || {
        smp::call_many(CpuMask::only(other), &|| {
            calls.fetch_add(1, Ordering::Relaxed);
        });
        made += 1;
    });
    COUNTED.sync::<Kernel>();
    kassert_eq!(calls.load(Ordering::Relaxed), made);
    kassert!(smp::ipi_counts(other).call > before);
    Ok(())
}
