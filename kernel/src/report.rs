//! Kernel reports: something is wrong, the kernel says so and goes on. A test that provokes
//! one arms it first, and it is taken down instead of printed.

use core::fmt;

use arrayvec::ArrayVec;

use crate::{
    smp,
    sync::{Expected, IrqLock},
};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The local APIC saw an error.
    Apic,
    /// An interrupt came that nobody asked for.
    StrayInterrupt,
    /// Code that may not sleep is about to.
    SleepInAtomic,
    /// A lock is used against its rules.
    Lock,
}

/// Reports that are taken down between two looks.
const KEPT: usize = 16;

struct Expectation {
    armed: ArrayVec<Kind, KEPT>,
    got: ArrayVec<Kind, KEPT>,
}

static EXPECTED: IrqLock<Expectation, Expected> = IrqLock::new(Expectation {
    armed: ArrayVec::new_const(),
    got: ArrayVec::new_const(),
});

/// Makes a report: printed, and counted for the test that is running. Task and interrupt
/// context.
pub fn report(kind: Kind, text: fmt::Arguments<'_>) {
    let expected = {
        let mut state = EXPECTED.lock();
        // Beyond KEPT a test has failed anyway.
        let _ = state.got.try_push(kind);
        let place = state.armed.iter().position(|armed| *armed == kind);
        place.map(|place| state.armed.remove(place)).is_some()
    };
    if !expected {
        println!(
            "=== REPORT {kind:?} on cpu{}: {text}",
            smp::this_cpu().number()
        );
    }
}

/// The next report of this kind is not printed.
pub fn expect(kind: Kind) {
    let _ = EXPECTED.lock().armed.try_push(kind);
}

/// Ends expectations. How many did not come, and all reports since the last call.
pub fn take_expected() -> (usize, ArrayVec<Kind, KEPT>) {
    let mut state = EXPECTED.lock();
    let missing = state.armed.len();
    state.armed.clear();
    (missing, core::mem::take(&mut state.got))
}
