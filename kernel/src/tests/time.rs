//! Time goes forward, everywhere, and timers are not early.

use core::sync::atomic::{AtomicU64, Ordering};

use platform::CpuId;

use crate::kunit::{Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kunit_suite};
use crate::{smp, time};

kunit_suite! {
    name: "time",
    cases: [
        monotonic => { over: OnlineCpus },
        in_order_across_cpus,
        spin_is_not_short,
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
