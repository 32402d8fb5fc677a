//! The faults themselves.

use core::{mem, ptr};

use platform::{
    CpuMask, LockKind, Platform,
    lock::Class,
    lockdep::Kind as Found,
    wait::{Mutex, WaitQueue},
};

use super::{
    HIGH, IN_IRQ, LOW, Low, MIDDLE, Middle, Sleeping, UNDER, by_hand, forget, needs_checker,
    wrong_level,
};
use crate::arch::{irq, preempt};
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, kskip, kunit_suite};
use crate::machine::Kernel;
use crate::report::Kind;
use crate::sched::{self, Builder, Pinned};
use crate::smp;
use crate::sweep::sweep;
use crate::timer::RawKind;

kunit_suite! {
    name: "lockdep_planted",
    setup: needs_checker,
    cases: [
        ab_ba => { expects: [Kind::Lock(Found::AbBa)] },
        ab_ba_of_two_threads => { expects: [Kind::Lock(Found::AbBa)] },
        three_lock_cycle => { expects: [Kind::Lock(Found::Cycle)] },
        level => { expects: [Kind::Lock(Found::Level)] },
        irq_unsafe_taken_in_irq => { expects: [Kind::Lock(Found::IrqUsage)] },
        irq_unsafe_under_irq_safe => { expects: [Kind::Lock(Found::IrqDependency)] },
        sleeping_in_atomic => { expects: [Kind::Lock(Found::SleepInAtomic)] },
        parking_in_atomic => { expects: [Kind::Lock(Found::SleepInAtomic)] },
        sleeping_lock_in_irq => { expects: [Kind::Lock(Found::SleepingLockInInterrupt)] },
        wait_under_lock => { expects: [Kind::Lock(Found::SleepUnderLock)] },
        unlock_by_another_cpu => { expects: [Kind::Lock(Found::NotHeld), Kind::LockWord] },
        unlock_after_a_move => {
            expects: [Kind::Lock(Found::SleepUnderLock), Kind::Lock(Found::ReleasedElsewhere)]
        },
        recursion => { expects: [Kind::Lock(Found::Recursion)] },
        waiting_in_nmi => { expects: [Kind::Lock(Found::WaitInNmi)] },
    ],
}

static MUTEX: Mutex<(), Kernel, Sleeping> = Mutex::new(());

/// Runs `handler` in one interrupt, or NMI, of this CPU.
fn interrupted_by(kind: RawKind, handler: &(dyn Fn() + Sync)) -> Outcome {
    let swept = sweep(kind, 1, 2, handler, || ());
    kassert_eq!(swept.interrupts, 1);
    Ok(())
}

fn ab_ba(_: &mut Ctx) -> Outcome {
    forget();
    {
        let _low = LOW.lock();
        let _high = HIGH.lock();
    }
    let _high = HIGH.lock();
    let _low = LOW.lock();
    Ok(())
}

/// On two CPUs where there are two. Neither thread alone does anything wrong.
fn ab_ba_of_two_threads(_: &mut Ctx) -> Outcome {
    forget();
    let last = smp::online().last();
    let one = kassert_ok!(Builder::new().spawn(format_args!("low first"), || {
        let _low = LOW.lock();
        let _high = HIGH.lock();
    }));
    one.join();
    let two = last.map_or(Builder::new(), |cpu| Builder::new().on(cpu));
    kassert_ok!(two.spawn(format_args!("high first"), wrong_level)).join();
    Ok(())
}

fn three_lock_cycle(_: &mut Ctx) -> Outcome {
    forget();
    {
        let _low = LOW.lock();
        let _middle = MIDDLE.lock();
    }
    {
        let _middle = MIDDLE.lock();
        let _high = HIGH.lock();
    }
    let _high = HIGH.lock();
    let _low = LOW.lock();
    Ok(())
}

fn level(_: &mut Ctx) -> Outcome {
    forget();
    wrong_level();
    Ok(())
}

fn irq_unsafe_taken_in_irq(_: &mut Ctx) -> Outcome {
    forget();
    drop(LOW.lock());
    interrupted_by(RawKind::Irq, &|| drop(LOW.lock()))
}

/// Another CPU could hold `UNDER` and be interrupted by one that wants `IN_IRQ`, while this
/// one holds `IN_IRQ` and waits for `UNDER`.
fn irq_unsafe_under_irq_safe(_: &mut Ctx) -> Outcome {
    forget();
    drop(UNDER.lock());
    interrupted_by(RawKind::Irq, &|| drop(IN_IRQ.lock()))?;
    let _in_irq = IN_IRQ.lock();
    let _unsafe = UNDER.lock();
    Ok(())
}

/// The lock is free, so it does not come to sleep: the fault is found all the same.
fn sleeping_in_atomic(_: &mut Ctx) -> Outcome {
    forget();
    let _pinned = Pinned::disable();
    drop(MUTEX.lock());
    Ok(())
}

/// The scheduler is asked itself.
fn parking_in_atomic(_: &mut Ctx) -> Outcome {
    forget();
    sched::unpark(&sched::current_ref());
    let _irqs_off = irq::disable();
    sched::park();
    Ok(())
}

fn sleeping_lock_in_irq(_: &mut Ctx) -> Outcome {
    forget();
    interrupted_by(RawKind::Irq, &|| drop(MUTEX.lock()))
}

/// The condition holds, so it does not come to wait.
fn wait_under_lock(_: &mut Ctx) -> Outcome {
    static QUEUE: WaitQueue<Kernel> = WaitQueue::new();
    forget();
    let _low = LOW.lock();
    QUEUE.wait_until(|| true);
    Ok(())
}

fn unlock_by_another_cpu(_: &mut Ctx) -> Outcome {
    let Some(other) = smp::online().without(smp::this_cpu()).first() else {
        kskip!("there is only one CPU");
    };
    forget();
    let depth = preempt::depth();
    mem::forget(LOW.lock());
    // SAFETY: not as it should be, on this CPU: that is the fault. The lock guards nothing.
    smp::call_on(other, &|| unsafe { LOW.force_unlock() });
    // What is left of the lock here.
    Kernel::lock_release(Low::class(), ptr::from_ref(&LOW).addr());
    preempt::enable();
    kassert_eq!(preempt::depth(), depth);
    kassert!(LOW.holder().is_none());
    Ok(())
}

/// The lock of a thread that was not to move and did. That it gives up the CPU with a lock
/// held is found first.
fn unlock_after_a_move(_: &mut Ctx) -> Outcome {
    let own = smp::this_cpu();
    let Some(other) = smp::online().without(own).first() else {
        kskip!("there is only one CPU");
    };
    forget();
    by_hand::<Low>(LockKind::Spin, 1, false);
    sched::move_to(CpuMask::only(other));
    Kernel::lock_release(Low::class(), 1);
    sched::move_to(CpuMask::only(own));
    Ok(())
}

/// By hand: a lock would panic after the report. (The boot scenario `panic-recursive-lock`
/// lets it.)
fn recursion(_: &mut Ctx) -> Outcome {
    forget();
    let _pinned = Pinned::disable();
    for _ in 0..2 {
        by_hand::<Middle>(LockKind::Spin, 1, false);
    }
    for _ in 0..2 {
        Kernel::lock_release(Middle::class(), 1);
    }
    Ok(())
}

fn waiting_in_nmi(_: &mut Ctx) -> Outcome {
    forget();
    interrupted_by(RawKind::Nmi, &|| drop(LOW.lock()))
}
