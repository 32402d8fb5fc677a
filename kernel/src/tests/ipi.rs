//! Calls from CPU to CPU.

use core::sync::atomic::{AtomicU64, Ordering};

use platform::{CpuId, CpuMask};

use crate::arch::interrupts::vector;
use crate::arch::{apic, irq};
use crate::boot;
use crate::kunit::{
    CpuPairs, Ctx, OnlineCpus, Outcome, kassert_eq, kassert_ok, kfail, kskip, kunit_suite,
};
use crate::smp;

kunit_suite! {
    name: "ipi",
    cases: [
        own_cpu,
        to_each => { over: OnlineCpus },
        all_pairs => { over: CpuPairs },
        wake_ups => { over: CpuPairs },
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
    takes_interrupts(me, 0, || {
        let marks = Marks::default();
        let irqs_on = AtomicU64::new(u64::MAX);
        smp::call_on(me, &|| {
            marks.mark();
            irqs_on.store(u64::from(irq::enabled()), Ordering::Relaxed);
        });
        kassert_eq!(marks.take(), CpuMask::only(me));
        kassert_eq!(irqs_on.load(Ordering::Relaxed), 0, "as on any other CPU");
        Ok(())
    })
}

/// Makes calls to `cpu` by `call` until one took exactly `wanted` interrupts. One that comes
/// while an earlier, already served one is being ended may take none or seem to take two;
/// that does not happen time after time.
fn takes_interrupts(cpu: CpuId, wanted: u64, mut call: impl FnMut() -> Outcome) -> Outcome {
    let mut counts = [0; 20];
    for count in &mut counts {
        let before = calls(cpu);
        call()?;
        *count = calls(cpu) - before;
        if *count == wanted {
            return Ok(());
        }
    }
    kfail!("interrupts of {cpu:?} for one call at a time: {counts:?}, never {wanted}")
}

fn to_each(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let call = || {
        let marks = Marks::default();
        let irqs_on = AtomicU64::new(u64::MAX);
        smp::call_on(cpu, &|| {
            marks.mark();
            irqs_on.store(u64::from(irq::enabled()), Ordering::Relaxed);
        });
        kassert_eq!(marks.take(), CpuMask::only(cpu));
        kassert_eq!(
            irqs_on.load(Ordering::Relaxed),
            0,
            "calls run in interrupt context"
        );
        Ok(())
    };
    if cpu == smp::this_cpu() {
        return call();
    }
    takes_interrupts(cpu, 1, call)
}

/// A call made by `from`, itself in an interrupt unless it is this CPU, to `to`.
fn all_pairs(_: &mut Ctx, (from, to): (CpuId, CpuId)) -> Outcome {
    takes_interrupts(to, 1, || {
        let marks = Marks::default();
        let caller = Marks::default();
        smp::call_on(from, &|| {
            caller.mark();
            smp::call_on(to, &|| marks.mark());
        });
        kassert_eq!(caller.take(), CpuMask::only(from));
        kassert_eq!(marks.take(), CpuMask::only(to));
        Ok(())
    })
}

/// The other kinds of interrupt arrive where they are sent, too.
fn wake_ups(_: &mut Ctx, (from, to): (CpuId, CpuId)) -> Outcome {
    let apic_id = kassert_ok!(boot::acpi().cpus.get(to.index())).apic_id;
    let before = smp::ipi_counts(to).reschedule;
    smp::call_on(from, &|| apic::send_vector(apic_id, vector::RESCHEDULE));
    // Nobody waits for it but this loop; one that never comes is the watchdog's to tell.
    while smp::ipi_counts(to).reschedule == before {
        core::hint::spin_loop();
    }
    kassert_eq!(smp::ipi_counts(to).reschedule, before + 1);
    Ok(())
}

fn call_all_reaches_each_once(_: &mut Ctx) -> Outcome {
    for _ in 0..100 {
        let count = AtomicU64::new(0);
        let marks = Marks::default();
        smp::call_all(&|| {
            marks.mark();
            count.fetch_add(1, Ordering::Relaxed);
        });
        kassert_eq!(marks.take(), smp::online());
        kassert_eq!(count.load(Ordering::Relaxed), smp::online().count() as u64);
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
    let cpus = smp::online().count() as u64;
    if cpus == 1 {
        kskip!("there is only one CPU");
    }
    // Many CPUs on few of the host's take long to wait for each other.
    let rounds = (1_000 / (cpus * cpus)).max(1);
    let count = AtomicU64::new(0);
    smp::call_all(&|| {
        for _ in 0..rounds {
            let others = smp::online().without(smp::this_cpu());
            smp::call_many(others, &|| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    kassert_eq!(count.load(Ordering::Relaxed), rounds * cpus * (cpus - 1));
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
