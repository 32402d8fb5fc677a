//! The local APIC in both of its modes, each CPU's.

use core::sync::atomic::{AtomicU64, Ordering};

use platform::{CpuId, SpawnError};

use crate::arch::{apic, cpu};
use crate::kunit::{Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kassert_ok, kskip, kunit_suite};
use crate::timer::RawKind;
use crate::{sched, smp, sweep, time};

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

/// Sets the timer of `cpu` for `ns` and waits until it has rung. The time from before it
/// was set until it rang, and how often it rang in `after_ns` more.
fn ring_once(cpu: CpuId, ns: u64, after_ns: u64) -> Result<(u64, u64), SpawnError> {
    let thread = sched::Builder::new()
        .on(cpu)
        .spawn(format_args!("ring_once"), move || {
            let rings = AtomicU64::new(0);
            let rang_at = AtomicU64::new(0);
            let counts = (ns * u64::from(apic::timer_rate())).div_ceil(1_000_000) + 1;
            let before = time::now_ns();
            // One that never rings is the watchdog's to tell.
            sweep::sweep(
                RawKind::Irq,
                counts as u32,
                counts as u32 + 1,
                &|| {
                    rings.fetch_add(1, Ordering::Relaxed);
                    rang_at.store(time::now_ns(), Ordering::Relaxed);
                },
                || time::spin_ns(ns + after_ns),
            );
            let passed = rang_at.load(Ordering::Relaxed) - before;
            (passed, rings.load(Ordering::Relaxed))
        })?;
    Ok(thread.join())
}

fn one_shot_timer_is_never_early(_: &mut Ctx, cpu: CpuId) -> Outcome {
    // The two clocks were measured against each other at boot: allow for their error.
    const ERROR: u64 = 20;
    for ns in [20_000, 200_000, 2_000_000] {
        let (passed, _) = kassert_ok!(ring_once(cpu, ns, 0));
        kassert!(passed >= ns - ns / ERROR, "{passed} ns instead of {ns} ns");
    }
    Ok(())
}

fn timer_rings_once(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let (_, rings) = kassert_ok!(ring_once(cpu, 50_000, 1_000_000));
    kassert_eq!(rings, 1);
    Ok(())
}
