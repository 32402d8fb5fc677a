//! The local APIC in both of its modes, each CPU's.

use core::sync::atomic::{AtomicU64, Ordering};

use platform::CpuId;

use crate::arch::{apic, cpu};
use crate::kunit::{Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kskip, kunit_suite};
use crate::{smp, time};

kunit_suite! {
    name: "apic",
    cases: [
        xapic_where_it_is_all_there_is,
        x2apic_where_there_is_one,
        no_errors => { over: OnlineCpus },
        one_shot_timer_is_never_early => { over: OnlineCpus },
        timer_rings_once => { over: OnlineCpus },
    ],
}

fn xapic_where_it_is_all_there_is(_: &mut Ctx) -> Outcome {
    if cpu::has_x2apic() {
        kskip!("this processor has an x2APIC, which is preferred");
    }
    kassert_eq!(apic::mode(), "xAPIC");
    kassert_eq!(apic::id(), cpu::apic_id());
    Ok(())
}

fn x2apic_where_there_is_one(_: &mut Ctx) -> Outcome {
    if !cpu::has_x2apic() {
        kskip!("CPUID says that this processor has no x2APIC");
    }
    kassert_eq!(apic::mode(), "x2APIC");
    kassert_eq!(apic::id(), cpu::apic_id());
    Ok(())
}

fn no_errors(_: &mut Ctx, cpu: CpuId) -> Outcome {
    // Relaxed here and below: the end of the call orders it before the read.
    let errors = AtomicU64::new(u64::MAX);
    smp::call_on(cpu, &|| {
        errors.store(u64::from(apic::take_errors()), Ordering::Relaxed)
    });
    kassert_eq!(errors.load(Ordering::Relaxed), 0);
    Ok(())
}

/// Timer interrupts of `cpu` so far.
fn rings(cpu: CpuId) -> u64 {
    smp::ipi_counts(cpu).timer
}

/// Arms the timer of `cpu` for `ns` and waits until it has rung, or much longer than that.
/// The time from before it was armed until after it rang.
fn ring_once(cpu: CpuId, ns: u64) -> Option<u64> {
    const PATIENCE_NS: u64 = 10_000_000_000;
    let before = rings(cpu);
    let start = time::now_ns();
    smp::call_on(cpu, &|| apic::arm_timer(ns));
    while rings(cpu) == before {
        if time::now_ns() - start > PATIENCE_NS {
            return None;
        }
        core::hint::spin_loop();
    }
    Some(time::now_ns() - start)
}

fn one_shot_timer_is_never_early(_: &mut Ctx, cpu: CpuId) -> Outcome {
    // The two clocks were measured against each other at boot: allow for their error.
    const ERROR: u64 = 100;
    for ns in [20_000, 200_000, 2_000_000] {
        let Some(passed) = ring_once(cpu, ns) else {
            crate::kunit::kfail!("a timer of {ns} ns never rang");
        };
        kassert!(passed >= ns - ns / ERROR, "{passed} ns instead of {ns} ns");
    }
    Ok(())
}

fn timer_rings_once(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let Some(_) = ring_once(cpu, 50_000) else {
        crate::kunit::kfail!("the timer never rang");
    };
    let after = rings(cpu);
    time::spin_ns(1_000_000);
    kassert_eq!(rings(cpu), after);
    Ok(())
}
