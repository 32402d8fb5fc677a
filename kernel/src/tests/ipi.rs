//! Calls from CPU to CPU.

use core::sync::atomic::{AtomicU64, Ordering};

use platform::{CpuId, CpuMask};

use crate::arch::irq;
use crate::kunit::{CpuPairs, Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kskip, kunit_suite};
use crate::smp;

kunit_suite! {
    name: "ipi",
    cases: [
        own_cpu,
        to_each => { over: OnlineCpus },
        all_pairs => { over: CpuPairs },
        call_all_reaches_each_once,
        call_many_reaches_its_mask,
        call_many_of_nobody,
        everyone_calls_everyone,
        what_was_written_is_seen,
    ],
}

/// CPUs that ran something, a bit each. Relaxed everywhere: the end of a call orders what
/// was done in it before what follows; `what_was_written_is_seen` is the test of that.
#[derive(Default)]
struct Marks(AtomicU64);

impl Marks {
    /// Marks this CPU.
    fn mark(&self) {
        self.0
            .fetch_or(1 << smp::this_cpu().number(), Ordering::Relaxed);
    }

    fn take(&self) -> CpuMask {
        CpuMask::from_bits(self.0.swap(0, Ordering::Relaxed))
    }
}

/// Calls that `cpu` has been interrupted for.
fn calls(cpu: CpuId) -> u64 {
    smp::ipi_counts(cpu).call
}

fn own_cpu(_: &mut Ctx) -> Outcome {
    let me = smp::this_cpu();
    let before = calls(me);
    let marks = Marks::default();
    smp::call_on(me, &|| marks.mark());
    kassert_eq!(marks.take(), CpuMask::only(me));
    kassert_eq!(calls(me), before, "a call to oneself needs no interrupt");
    Ok(())
}

fn to_each(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let before = calls(cpu);
    let marks = Marks::default();
    let irqs_on = AtomicU64::new(0);
    smp::call_on(cpu, &|| {
        marks.mark();
        irqs_on.store(u64::from(irq::enabled()), Ordering::Relaxed);
    });
    kassert_eq!(marks.take(), CpuMask::only(cpu));
    if cpu != smp::this_cpu() {
        kassert_eq!(
            irqs_on.load(Ordering::Relaxed),
            0,
            "calls run in interrupt context"
        );
        kassert_eq!(calls(cpu), before + 1);
    }
    Ok(())
}

/// A call made by `from`, itself in an interrupt, to `to`.
fn all_pairs(_: &mut Ctx, (from, to): (CpuId, CpuId)) -> Outcome {
    let before = calls(to);
    let marks = Marks::default();
    let caller = Marks::default();
    smp::call_on(from, &|| {
        caller.mark();
        smp::call_on(to, &|| marks.mark());
    });
    kassert_eq!(caller.take(), CpuMask::only(from));
    kassert_eq!(marks.take(), CpuMask::only(to));
    kassert!(calls(to) > before, "{to:?} was not interrupted");
    Ok(())
}

fn call_all_reaches_each_once(_: &mut Ctx) -> Outcome {
    let me = smp::this_cpu();
    for _ in 0..100 {
        let before: u64 = smp::online().without(me).iter().map(calls).sum();
        let count = AtomicU64::new(0);
        let marks = Marks::default();
        smp::call_all(&|| {
            marks.mark();
            count.fetch_add(1, Ordering::Relaxed);
        });
        kassert_eq!(marks.take(), smp::online());
        kassert_eq!(count.load(Ordering::Relaxed), smp::online().count() as u64);
        let after: u64 = smp::online().without(me).iter().map(calls).sum();
        kassert_eq!(after - before, smp::online().count() as u64 - 1);
    }
    Ok(())
}

fn call_many_reaches_its_mask(ctx: &mut Ctx) -> Outcome {
    let marks = Marks::default();
    for _ in 0..100 {
        let mask = CpuMask::from_bits(ctx.rng().next_u64()).intersection(smp::online());
        smp::call_many(mask, &|| marks.mark());
        kassert_eq!(marks.take(), mask);
    }
    Ok(())
}

fn call_many_of_nobody(_: &mut Ctx) -> Outcome {
    let marks = Marks::default();
    smp::call_many(CpuMask::EMPTY, &|| marks.mark());
    kassert_eq!(marks.take(), CpuMask::EMPTY);
    Ok(())
}

/// All CPUs call all others at the same time, each from an interrupt: nobody can wait
/// for another without serving it.
fn everyone_calls_everyone(_: &mut Ctx) -> Outcome {
    const ROUNDS: u64 = 20;
    let cpus = smp::online().count() as u64;
    if cpus == 1 {
        kskip!("there is only one CPU");
    }
    let count = AtomicU64::new(0);
    smp::call_all(&|| {
        for _ in 0..ROUNDS {
            let others = smp::online().without(smp::this_cpu());
            smp::call_many(others, &|| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    kassert_eq!(count.load(Ordering::Relaxed), ROUNDS * cpus * (cpus - 1));
    Ok(())
}

/// What the caller wrote before is seen by the callee, and the other way round.
fn what_was_written_is_seen(_: &mut Ctx) -> Outcome {
    let question = AtomicU64::new(0);
    let answer = AtomicU64::new(0);
    for round in 1..=200u64 {
        for cpu in smp::online() {
            question.store(round, Ordering::Relaxed);
            smp::call_on(cpu, &|| {
                answer.store(question.load(Ordering::Relaxed) * 3, Ordering::Relaxed)
            });
            kassert_eq!(answer.load(Ordering::Relaxed), round * 3, "{cpu:?}");
        }
    }
    Ok(())
}
