//! Data that every CPU has a copy of.

use core::sync::atomic::Ordering;

use alloc::vec::Vec;

use platform::CpuId;

use crate::arch::percpu::PerCpuCell;
use crate::kunit::{Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kunit_suite};
use crate::{percpu, smp};

kunit_suite! {
    name: "percpu",
    setup: reset,
    cases: [
        initial_value,
        own_copy,
        remote_view => { over: OnlineCpus },
        writes_stay_apart,
        copies_are_distinct,
        concurrent_adds,
    ],
}

/// Recognisable, so that a copy made from the wrong place is not taken for right.
const INITIAL: u64 = 0x1234_5678_9abc_def0;

percpu! {
    static UNTOUCHED: u64 = INITIAL;
    static BEFORE: u64 = 0;
    static COUNTER: u64 = 0;
    static BEHIND: u64 = 0;
}

/// Cases may come in any order and more than once.
fn reset(_: &mut Ctx) -> Outcome {
    smp::call_all(&|| {
        BEFORE.set(0);
        COUNTER.set(0);
        BEHIND.set(0);
    });
    Ok(())
}

/// What `cpu` has in its copy of the counter. Relaxed: whoever asks has waited for the
/// end of the call that wrote it.
fn counter_on(cpu: CpuId) -> u64 {
    COUNTER.on(cpu).load(Ordering::Relaxed)
}

fn initial_value(_: &mut Ctx) -> Outcome {
    kassert_eq!(UNTOUCHED.get(), INITIAL);
    for cpu in smp::online() {
        kassert_eq!(
            UNTOUCHED.on(cpu).load(Ordering::Relaxed),
            INITIAL,
            "{cpu:?}"
        );
    }
    Ok(())
}

fn own_copy(_: &mut Ctx) -> Outcome {
    let me = smp::this_cpu();
    COUNTER.set(40);
    COUNTER.add(2);
    kassert_eq!(COUNTER.get(), 42);
    kassert_eq!(counter_on(me), 42);
    COUNTER.add(u64::MAX);
    kassert_eq!(COUNTER.get(), 41, "adding wraps");
    // Neighbours in the area are not touched.
    kassert_eq!((BEFORE.get(), BEHIND.get()), (0, 0));
    Ok(())
}

/// What a CPU writes to its copy is what others see of it.
fn remote_view(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let value = 1_000 + u64::from(cpu.number());
    smp::call_on(cpu, &|| COUNTER.set(value));
    kassert_eq!(counter_on(cpu), value);
    Ok(())
}

fn writes_stay_apart(_: &mut Ctx) -> Outcome {
    smp::call_all(&|| COUNTER.set(7));
    for writer in smp::online() {
        smp::call_on(writer, &|| COUNTER.set(8));
        for cpu in smp::online() {
            let expected = if cpu == writer { 8 } else { 7 };
            kassert_eq!(
                counter_on(cpu),
                expected,
                "{cpu:?} after a write on {writer:?}"
            );
        }
        smp::call_on(writer, &|| COUNTER.set(7));
    }
    Ok(())
}

fn copies_are_distinct(_: &mut Ctx) -> Outcome {
    let mut addresses: Vec<usize> = smp::online()
        .iter()
        .map(|cpu| core::ptr::from_ref(COUNTER.on(cpu)).addr())
        .collect();
    addresses.sort_unstable();
    for pair in addresses.windows(2) {
        // CPUs that share a cache line would slow each other down.
        kassert!(pair[1] - pair[0] >= 64, "{:#x} and {:#x}", pair[0], pair[1]);
    }
    kassert!(addresses.iter().all(|address| address % 8 == 0));
    Ok(())
}

fn concurrent_adds(_: &mut Ctx) -> Outcome {
    const ROUNDS: u64 = 10_000;
    smp::call_all(&|| {
        COUNTER.set(0);
        for _ in 0..ROUNDS {
            COUNTER.add(1);
        }
    });
    for cpu in smp::online() {
        kassert_eq!(counter_on(cpu), ROUNDS, "{cpu:?}");
    }
    Ok(())
}
