//! A reader that holds its section for too long is named, and the kernel goes on.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use platform::{CpuId, Priority};
use rcu::Machine;

use crate::{
    arch::irq,
    kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, kskip, kunit_suite},
    machine::Kernel,
    rcu::{last_stall, rcu, read},
    report::Kind,
    sched::{self, Builder},
    smp, time,
};

kunit_suite! {
    name: "rcu_stall",
    setup: prepare,
    teardown: restore,
    cases: [
        reader_on_its_cpu_is_named => { over: WAITS, expects: [Kind::RcuStall] },
        cpu_with_interrupts_off_is_named => { over: WAITS, expects: [Kind::RcuStall] },
        reader_switched_away_is_named => { over: WAITS, expects: [Kind::RcuStall] },
        nothing_is_said_in_time,
    ],
}

type Wait = fn();

const WAITS: &[(&str, Wait)] = &[
    ("normal", || rcu().synchronize()),
    ("expedited", || rcu().synchronize_expedited()),
];

/// Short enough to wait for, long enough that the reader ends its section before the next
/// report, which comes after three times as long.
fn stall_ns() -> u64 {
    if time::is_exact() {
        50_000_000
    } else {
        300_000_000
    }
}

/// What it was before.
static BEFORE: AtomicU64 = AtomicU64::new(0);

fn prepare(_: &mut Ctx) -> Outcome {
    BEFORE.store(rcu().stall_ns(), Ordering::SeqCst);
    Ok(())
}

fn restore(_: &mut Ctx) -> Outcome {
    rcu().set_stall_ns(BEFORE.load(Ordering::SeqCst));
    Ok(())
}

fn stalls() -> u64 {
    last_stall().map_or(0, |last| last.count)
}

/// How a reader stays in its section.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stay {
    Running,
    /// No interrupt tells it of anything.
    InterruptsOff,
    /// Another thread does not let it run.
    SwitchedAway,
}

/// Reads on `cpu` until a stall is reported that another CPU comes to by `wait`.
fn stall(cpu: CpuId, from: CpuId, wait: Wait, stay: Stay) -> Outcome {
    let hogged = stay == Stay::SwitchedAway;
    rcu().set_stall_ns(stall_ns());
    let before = stalls();
    let inside = Arc::new(AtomicBool::new(false));
    let reader = {
        let inside = Arc::clone(&inside);
        let builder = Builder::new().on(cpu).priority(Priority::Low);
        builder.spawn(format_args!("stalls"), move || {
            let _guard = read();
            let _irqs_off = (stay == Stay::InterruptsOff).then(irq::disable);
            inside.store(true, Ordering::SeqCst);
            while stalls() == before {
                core::hint::spin_loop();
            }
        })
    };
    let reader = kassert_ok!(reader);
    while !inside.load(Ordering::SeqCst) {
        sched::sleep_ns(100_000);
    }
    let hog = hogged.then(|| {
        Builder::new().on(cpu).spawn(format_args!("hog"), move || {
            while stalls() == before {
                core::hint::spin_loop();
            }
        })
    });
    let hog = match hog {
        Some(hog) => Some(kassert_ok!(hog)),
        None => None,
    };
    let start = time::now_ns();
    let waiter = Builder::new()
        .on(from)
        .priority(Priority::High)
        .spawn(format_args!("waits"), wait);
    kassert_ok!(waiter).join();
    let waited = time::now_ns() - start;
    let number = reader.thread().id;
    reader.join();
    if let Some(hog) = hog {
        hog.join();
    }
    let last = kassert_ok!(last_stall());
    kassert_eq!(last.count, before + 1);
    kassert!(waited >= stall_ns(), "reported after {waited} ns");
    if hogged {
        kassert_eq!(last.switched_away, Some(number), "{last:?}");
        kassert!(!last.cpus.contains(cpu), "{last:?}");
    } else {
        kassert!(last.cpus.contains(cpu), "{last:?}");
        kassert_eq!(last.on_cpu, Some(number), "{last:?}");
    }
    // The kernel goes on.
    rcu().synchronize();
    rcu().synchronize_expedited();
    rcu().barrier();
    kassert_eq!(stalls(), before + 1);
    Ok(())
}

fn reader_on_its_cpu_is_named(_: &mut Ctx, wait: Wait) -> Outcome {
    let own = smp::this_cpu();
    let Some(cpu) = smp::online().without(own).first() else {
        kskip!("nobody is there to wait meanwhile");
    };
    stall(cpu, own, wait, Stay::Running)
}

/// One that takes no interrupts is not waited for by who reports it, and shows its stack.
fn cpu_with_interrupts_off_is_named(_: &mut Ctx, wait: Wait) -> Outcome {
    let own = smp::this_cpu();
    let Some(cpu) = smp::online().without(own).first() else {
        kskip!("nobody is there to wait meanwhile");
    };
    stall(cpu, own, wait, Stay::InterruptsOff)
}

fn reader_switched_away_is_named(_: &mut Ctx, wait: Wait) -> Outcome {
    if !Kernel::preemptible() {
        kskip!("sections of this build are not preempted");
    }
    let own = smp::this_cpu();
    let cpu = smp::online().without(own).first().unwrap_or(own);
    stall(cpu, own, wait, Stay::SwitchedAway)
}

/// A section that is shorter is nobody's business.
fn nothing_is_said_in_time(_: &mut Ctx) -> Outcome {
    rcu().set_stall_ns(60_000_000_000);
    let before = stalls();
    let own = smp::this_cpu();
    let Some(cpu) = smp::online().without(own).first() else {
        kskip!("nobody is there to wait meanwhile");
    };
    let reader = Builder::new()
        .on(cpu)
        .spawn(format_args!("reader"), move || {
            let _guard = read();
            let end = time::now_ns() + 2 * stall_ns();
            while time::now_ns() < end {
                core::hint::spin_loop();
            }
        });
    let reader = kassert_ok!(reader);
    rcu().synchronize();
    rcu().synchronize_expedited();
    reader.join();
    kassert_eq!(stalls(), before);
    Ok(())
}
