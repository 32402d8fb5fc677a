//! The order checker: it is alive, and it finds the faults that are planted here. What they
//! are planted in are locks like any others, of classes that only these suites use.

mod ends;
mod planted;

use core::panic::Location;

use platform::{
    Acquisition, LockKind, Platform,
    lock::{Class, LockClass},
    lock_class,
    lockdep::Kind as Found,
};

use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kskip, kunit_suite};
use crate::lockdep::{self, CHECKER};
use crate::machine::Kernel;
use crate::report::{self, Kind};
use crate::sync::{IrqLock, SpinLock};
use crate::{console, kunit};

kunit_suite! {
    name: "lockdep",
    setup: needs_checker,
    cases: [
        is_alive,
        nothing_was_found_unasked,
        reported_once => { expects: [Kind::Lock(Found::Level)] },
        found_with_the_console_locked => { expects: [Kind::Lock(Found::Level)] },
    ],
}

lock_class! {
    struct Low = ("planted low", 40);
    struct Middle = ("planted middle", 41);
    struct High = ("planted high", 42);
    struct InIrq = ("planted in irq", 43);
    struct Under = ("planted under irq", 44);
    struct Sleeping = ("planted sleeping", 45);
}

static LOW: SpinLock<(), Low> = SpinLock::new(());
static MIDDLE: SpinLock<(), Middle> = SpinLock::new(());
static HIGH: SpinLock<(), High> = SpinLock::new(());
static IN_IRQ: IrqLock<(), InIrq> = IrqLock::new(());
static UNDER: SpinLock<(), Under> = SpinLock::new(());

fn needs_checker(_: &mut Ctx) -> Outcome {
    if !lockdep::ENABLED {
        kskip!("this build does not check locks");
    }
    Ok(())
}

/// As if nobody had used the planted classes, or found anything yet.
fn forget() {
    let classes: [&'static LockClass; 6] = [
        Low::class(),
        Middle::class(),
        High::class(),
        InIrq::class(),
        Under::class(),
        Sleeping::class(),
    ];
    for class in classes {
        CHECKER.forget(class);
    }
}

/// An acquisition that no lock makes.
#[track_caller]
fn by_hand<C: Class>(kind: LockKind, lock: usize, is_try: bool) {
    Kernel::lock_acquire(&Acquisition {
        class: C::class(),
        lock,
        kind,
        is_try,
        nesting: 0,
        at: Location::caller(),
    });
}

/// The order that was used is learned, and nothing else is said about it.
fn is_alive(_: &mut Ctx) -> Outcome {
    const TIMES: u64 = 100;
    forget();
    let before = CHECKER.statistics();
    for _ in 0..TIMES {
        let _low = LOW.lock();
        let _high = HIGH.lock_under(&_low);
    }
    let after = CHECKER.statistics();
    kassert!(
        after.acquisitions >= before.acquisitions + 2 * TIMES,
        "{before}; {after}"
    );
    kassert!(after.edges > before.edges, "{before}; {after}");
    kassert!(after.deepest >= 2);
    // The kernel's own, from boot on.
    kassert!(before.edges >= 3, "{before}");
    kassert_eq!(after.reported, before.reported);
    Ok(())
}

/// Neither while booting, nor between cases, nor in them.
fn nothing_was_found_unasked(_: &mut Ctx) -> Outcome {
    kassert_eq!(report::printed(), 0, "kernel reports since boot");
    Ok(())
}

fn wrong_level() {
    let _high = HIGH.lock();
    let _low = LOW.lock();
}

/// A fault in a loop does not flood the log.
fn reported_once(_: &mut Ctx) -> Outcome {
    forget();
    let before = CHECKER.statistics();
    for _ in 0..kunit::rounds(1_000, 100) {
        wrong_level();
    }
    kassert_eq!(CHECKER.statistics().reported, before.reported + 1);
    Ok(())
}

/// A finding where the console's lock cannot be waited for is told all the same.
fn found_with_the_console_locked(_: &mut Ctx) -> Outcome {
    forget();
    console::with_lock_held(|| drop(LOW.lock()));
    Ok(())
}
