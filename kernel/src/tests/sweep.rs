//! The interrupt sweep, and what every hot path has to go through: the local try-lock and
//! per-CPU data, interrupted at each instruction by code that does the same.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use platform::{
    lock::LocalLock,
    lock_class,
    percpu::{Counter, PerCpu},
};

use crate::arch::preempt;
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, knote, kunit_suite};
use crate::machine::Kernel;
use crate::sched;
use crate::sweep::{Swept, sweep};
use crate::timer::RawKind;
use crate::{smp, time};

kunit_suite! {
    name: "sweep",
    cases: [
        meets_every_instruction,
        local_lock => { over: KINDS },
        counter => { over: KINDS },
        preempt_count => { over: KINDS },
        wake_up_meets_the_sleeper,
    ],
}

const KINDS: &[(&str, RawKind)] = &[("irq", RawKind::Irq), ("nmi", RawKind::Nmi)];

lock_class! {
    struct Swept1 = ("swept", 120);
}

/// More instructions than any of the operations has, with setting the timer.
const LENGTH: u32 = 1_200;

/// On the exact machine the interrupt comes n instructions after it was set, for each n.
fn meets_every_instruction(_: &mut Ctx) -> Outcome {
    static PROGRESS: AtomicU64 = AtomicU64::new(0);
    const STEPS: usize = 100;
    let met: Box<[AtomicU64]> = (0..=STEPS).map(|_| AtomicU64::new(0)).collect();
    let handler = || {
        let at = PROGRESS.load(Ordering::Relaxed) as usize;
        if let Some(count) = met.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let swept = sweep(RawKind::Irq, 1, LENGTH, &handler, || {
        for step in 0..=STEPS as u64 {
            PROGRESS.store(step, Ordering::Relaxed);
        }
    });
    kassert_eq!(swept.runs, u64::from(LENGTH) - 1);
    kassert!(swept.interrupts >= swept.runs);
    let places = met
        .iter()
        .filter(|count| count.load(Ordering::Relaxed) > 0)
        .count();
    knote!("{places} of {} places met", STEPS + 1);
    // Other CPUs' instructions take time, too.
    if time::is_exact() && smp::online().count() == 1 {
        kassert_eq!(places, STEPS + 1);
    }
    Ok(())
}

/// The handler that arrives inside finds the lock taken and falls back; the two never both
/// have it.
fn local_lock(_: &mut Ctx, kind: RawKind) -> Outcome {
    struct Data {
        first: u64,
        second: u64,
    }
    let data: PerCpu<LocalLock<Data, Kernel, Swept1>, Kernel> =
        kassert_ok!(PerCpu::try_new(|_| LocalLock::new(Data {
            first: 0,
            second: 0
        })));
    let (met, fell_back, torn) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let change = || match data.try_lock_here() {
        Some(mut data) => {
            if data.first != data.second {
                torn.fetch_add(1, Ordering::Relaxed);
            }
            data.first += 1;
            // Written through memory, so that the two are apart in instructions.
            core::hint::black_box(&mut data.first);
            data.second += 1;
            true
        }
        None => false,
    };
    let handler = || {
        if !change() {
            met.fetch_add(1, Ordering::Relaxed);
        }
    };
    let swept = sweep(kind, 1, LENGTH, &handler, || {
        if !change() {
            fell_back.fetch_add(1, Ordering::Relaxed);
        }
    });
    let met = met.load(Ordering::Relaxed);
    knote!("{swept:?}: {met} met the lock taken");
    kassert_eq!(torn.load(Ordering::Relaxed), 0);
    // What is interrupted never finds the lock taken: handlers give it back.
    kassert_eq!(fell_back.load(Ordering::Relaxed), 0);
    let done = here(|| data.try_lock_here().map(|data| (data.first, data.second)));
    let wanted = swept.runs + swept.interrupts - met;
    kassert_eq!(done, Some((wanted, wanted)));
    if time::is_exact() {
        kassert!(met > 0, "no interrupt met the lock taken");
    }
    Ok(())
}

/// The case's thread is bound to its CPU, but says so where it matters.
fn here<R>(f: impl FnOnce() -> R) -> R {
    let _pinned = sched::Pinned::disable();
    f()
}

fn counter(_: &mut Ctx, kind: RawKind) -> Outcome {
    let count: Counter<Kernel> = kassert_ok!(Counter::try_new());
    let swept: Swept = sweep(kind, 1, LENGTH, &|| count.add(1), || {
        for _ in 0..20 {
            count.add(1);
        }
    });
    kassert_eq!(count.sum(), swept.runs * 20 + swept.interrupts);
    Ok(())
}

/// Turning preemption off and on is not torn by handlers that do the same.
fn preempt_count(_: &mut Ctx, kind: RawKind) -> Outcome {
    let depth = preempt::depth();
    let inside = AtomicU64::new(0);
    let nest = || {
        for _ in 0..4 {
            preempt::disable();
        }
        inside.fetch_max(u64::from(preempt::depth()), Ordering::Relaxed);
        for _ in 0..4 {
            preempt::enable();
        }
    };
    sweep(kind, 1, LENGTH, &nest, nest);
    kassert_eq!(preempt::depth(), depth);
    // The sweep's own, the operation's four, the handler's four.
    kassert!(inside.load(Ordering::Relaxed) <= u64::from(depth) + 9);
    Ok(())
}

/// A wake-up from an interrupt at each place of a park with time-out: none is lost, whoever
/// comes first.
fn wake_up_meets_the_sleeper(_: &mut Ctx) -> Outcome {
    use alloc::sync::Arc;

    use crate::kunit;
    use crate::timer::Timer;

    let own = sched::current_ref();
    let rounds = kunit::rounds(100_000, 1_500);
    let fired = Arc::new(AtomicU64::new(0));
    let timer = {
        let fired = Arc::clone(&fired);
        kassert_ok!(Timer::new(move || {
            fired.fetch_add(1, Ordering::Release);
            sched::unpark(&own);
        }))
    };
    for round in 0..rounds {
        let before = fired.load(Ordering::Acquire);
        timer.arm(time::now_ns() + 3_000 + round % 8_000);
        let deadline = time::now_ns() + 2_000_000_000;
        while fired.load(Ordering::Acquire) == before {
            sched::park_until(deadline);
            kassert!(
                fired.load(Ordering::Acquire) > before || time::now_ns() < deadline,
                "a wake-up was lost in round {round}"
            );
        }
    }
    kassert_eq!(fired.load(Ordering::Acquire), rounds);
    Ok(())
}
