//! What is still held at the end of a thread or a handler, and what a thread holds.

use alloc::sync::Arc;
use core::{
    mem,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use platform::{LockKind, lockdep::Kind as Found, wait::Mutex};

use super::{Low, Sleeping, by_hand, forget, needs_checker};
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, kunit_suite};
use crate::machine::Kernel;
use crate::report::Kind;
use crate::sched::{self, Builder};
use crate::softirq;
use crate::sweep::sweep;
use crate::timer::RawKind;

kunit_suite! {
    name: "lockdep_ends",
    setup: needs_checker,
    cases: [
        thread_ends_with_a_lock => { expects: [Kind::Lock(Found::StillHeld)] },
        irq_ends_with_a_lock => { expects: [Kind::Lock(Found::StillHeld)] },
        nmi_ends_with_a_lock => { expects: [Kind::Lock(Found::StillHeld)] },
        softirq_ends_with_a_lock => { expects: [Kind::Lock(Found::StillHeld)] },
        softirq_thread_keeps_a_lock => { expects: [Kind::Lock(Found::StillHeld)] },
        sleeper_holds_its_locks,
    ],
}

type Lock = Mutex<(), Kernel, Sleeping>;

fn thread_ends_with_a_lock(_: &mut Ctx) -> Outcome {
    forget();
    let lock: Arc<Lock> = Arc::new(Mutex::new(()));
    let thread = Builder::new().spawn(format_args!("keeper"), move || mem::forget(lock.lock()));
    kassert_ok!(thread).join();
    Ok(())
}

fn irq_ends_with_a_lock(_: &mut Ctx) -> Outcome {
    forget();
    let keep = || by_hand::<Low>(LockKind::IrqSpin, 1, false);
    kassert_eq!(sweep(RawKind::Irq, 1, 2, &keep, || ()).interrupts, 1);
    Ok(())
}

/// A try, which an NMI may.
fn nmi_ends_with_a_lock(_: &mut Ctx) -> Outcome {
    forget();
    let keep = || by_hand::<Low>(LockKind::IrqSpin, 1, true);
    kassert_eq!(sweep(RawKind::Nmi, 1, 2, &keep, || ()).interrupts, 1);
    Ok(())
}

static SOFTIRQS: AtomicU64 = AtomicU64::new(0);

fn keep_in_softirq() {
    by_hand::<Low>(LockKind::Spin, 1, false);
    SOFTIRQS.fetch_add(1, Ordering::Relaxed);
}

/// At the end of an interrupt.
fn softirq_ends_with_a_lock(_: &mut Ctx) -> Outcome {
    forget();
    softirq::set_test(Some(keep_in_softirq));
    let before = SOFTIRQS.load(Ordering::Relaxed);
    let raise = || softirq::raise(softirq::Kind::Test);
    let swept = sweep(RawKind::Irq, 1, 2, &raise, || ());
    softirq::set_test(None);
    kassert_eq!(swept.interrupts, 1);
    kassert_eq!(SOFTIRQS.load(Ordering::Relaxed), before + 1);
    Ok(())
}

/// In the CPU's thread for them.
fn softirq_thread_keeps_a_lock(_: &mut Ctx) -> Outcome {
    forget();
    softirq::set_test(Some(keep_in_softirq));
    let before = SOFTIRQS.load(Ordering::Relaxed);
    softirq::raise(softirq::Kind::Test);
    while SOFTIRQS.load(Ordering::Relaxed) == before {
        sched::yield_now();
    }
    softirq::set_test(None);
    Ok(())
}

/// What a thread that sleeps holds is known, and that it holds nothing when it has ended.
fn sleeper_holds_its_locks(_: &mut Ctx) -> Outcome {
    static ASLEEP: AtomicBool = AtomicBool::new(false);
    static GO_ON: AtomicBool = AtomicBool::new(false);
    forget();
    ASLEEP.store(false, Ordering::Relaxed);
    GO_ON.store(false, Ordering::Relaxed);
    let thread = kassert_ok!(Builder::new().spawn(format_args!("holder"), || {
        let lock: Lock = Mutex::new(());
        let _guard = lock.lock();
        ASLEEP.store(true, Ordering::Release);
        while !GO_ON.load(Ordering::Acquire) {
            sched::park();
        }
    }));
    let handle = thread.thread().clone();
    while !ASLEEP.load(Ordering::Acquire) {
        sched::yield_now();
    }
    let held = handle.holds_locks();
    let listed = handle.held().map_or(0, |held| held.locks().count());
    GO_ON.store(true, Ordering::Release);
    sched::unpark(&handle);
    thread.join();
    kassert!(held);
    kassert_eq!(listed, 1);
    kassert!(!handle.holds_locks());
    Ok(())
}
