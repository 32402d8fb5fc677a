//! Time goes forward, everywhere, and timers are not early.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use platform::CpuId;

use crate::arch::apic;
use crate::kunit::{
    Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kassert_ne, kassert_ok, knote, kunit_suite,
};
use crate::timer::{Raw, RawKind, Timer};
use crate::{smp, time};

kunit_suite! {
    name: "time",
    cases: [
        monotonic => { over: OnlineCpus },
        in_order_across_cpus,
        spin_is_not_short,
        timer_is_not_early => { over: DELAYS },
        timer_counts_with_the_tsc,
    ],
}

/// On each CPU by itself.
fn monotonic(_: &mut Ctx, cpu: CpuId) -> Outcome {
    // Relaxed: the end of the call orders them before the reads below.
    let backwards = AtomicU64::new(0);
    let moved = AtomicU64::new(0);
    smp::call_on(cpu, &|| {
        let first = time::now_ns();
        let mut last = first;
        for _ in 0..10_000 {
            let now = time::now_ns();
            if now < last {
                backwards.fetch_add(1, Ordering::Relaxed);
            }
            last = now;
        }
        moved.store(last - first, Ordering::Relaxed);
    });
    kassert_eq!(backwards.load(Ordering::Relaxed), 0);
    kassert!(moved.load(Ordering::Relaxed) > 0, "the clock stands still");
    Ok(())
}

/// A call begins after it was made and ends before it returns, also by the other
/// CPU's clock.
fn in_order_across_cpus(_: &mut Ctx) -> Outcome {
    for _ in 0..20 {
        for cpu in smp::online() {
            let there = AtomicU64::new(0);
            let before = time::now_ns();
            smp::call_on(cpu, &|| there.store(time::now_ns(), Ordering::Relaxed));
            let after = time::now_ns();
            let there = there.load(Ordering::Relaxed);
            kassert!(before <= there, "{cpu:?}: {there} ns is before {before} ns");
            kassert!(there <= after, "{cpu:?}: {there} ns is after {after} ns");
        }
    }
    Ok(())
}

/// Longer is allowed: this may be a busy host.
fn spin_is_not_short(_: &mut Ctx) -> Outcome {
    for ns in [0, 1, 1_000, 100_000, 2_000_000] {
        let before = time::now_ns();
        time::spin_ns(ns);
        let passed = time::now_ns() - before;
        kassert!(passed >= ns, "{passed} ns instead of {ns}");
    }
    Ok(())
}

const DELAYS: &[(&str, u64)] = &[
    ("shortest", 1),
    ("1us", 1_000),
    ("50us", 50_000),
    ("1ms", 1_000_000),
    ("20ms", 20_000_000),
];

/// Calls once, and not before its time.
fn timer_is_not_early(_: &mut Ctx, delay_ns: u64) -> Outcome {
    let called = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let timer = {
        let called = Arc::clone(&called);
        kassert_ok!(Timer::new(move || {
            called.1.store(time::now_ns(), Ordering::Relaxed);
            // Release: who sees the call sees its time.
            called.0.fetch_add(1, Ordering::Release);
        }))
    };
    let deadline = time::now_ns() + delay_ns;
    timer.arm(deadline);
    // Late is allowed; for ever is the watchdog's business.
    while called.0.load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
    let at = called.1.load(Ordering::Relaxed);
    kassert!(at >= deadline, "{at} ns instead of {deadline}");
    time::spin_ns(100_000);
    kassert_eq!(called.0.load(Ordering::Acquire), 1);
    kassert!(!timer.is_armed());
    Ok(())
}

/// The rate that boot measured for the APIC timer holds: counts of the timer and of the
/// clock agree. Both clocks are read between two readings of the other, so that it does
/// not matter how long a reading takes.
fn timer_counts_with_the_tsc(_: &mut Ctx) -> Outcome {
    let rate = u64::from(apic::timer_rate());
    kassert_ne!(rate, 0);
    let hardware = Raw::take(RawKind::Irq);
    let started_after = time::now_ns();
    apic::start_free_timer();
    let started_before = time::now_ns();
    time::spin_ns(20_000_000);
    let read_after = time::now_ns();
    let counts = u64::from(apic::free_timer_elapsed());
    let read_before = time::now_ns();
    drop(hardware);
    let least = (read_after - started_before) * rate / 1_000_000;
    let most = (read_before - started_after) * rate / 1_000_000;
    knote!("{counts} counts, between {least} and {most} by the clock");
    // Boot measures for a few milliseconds only, on a machine that may be busy; a rate that
    // is wrong by a divider's setting is off by two at least.
    kassert!(
        counts > least / 2,
        "{counts} counts, {least} at least expected"
    );
    kassert!(
        counts / 2 < most,
        "{counts} counts, {most} at most expected"
    );
    Ok(())
}
