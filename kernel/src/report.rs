//! Kernel reports: something is wrong, the kernel says so and goes on. A test that provokes
//! one arms it first, and it is taken down instead of printed.

use core::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};

use arrayvec::ArrayVec;
use platform::lockdep;

use crate::{
    console, smp,
    sync::{Expected, IrqLock},
};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The local APIC saw an error.
    Apic,
    /// An interrupt came that nobody asked for.
    StrayInterrupt,
    /// The order checker found this; or, in builds without one, code that may not sleep is
    /// about to.
    Lock(lockdep::Kind),
    /// A lock's own word shows that it is used against its rules.
    LockWord,
    /// Memory is used wrongly, or there is none.
    Memory(mm::report::Kind),
    /// RCU is used wrongly.
    Rcu,
    /// A grace period does not end.
    RcuStall,
    /// A report that was printed, but could not be taken down.
    Lost,
}

/// Reports that are taken down between two looks.
const KEPT: usize = 16;

struct Expectation {
    armed: ArrayVec<Kind, KEPT>,
    got: ArrayVec<Kind, KEPT>,
    /// Any number of these is all right.
    tolerated: Option<Kind>,
}

impl Expectation {
    /// Takes a report down. Whether it was expected.
    fn note(&mut self, kind: Kind) -> bool {
        if self.tolerated == Some(kind) {
            return true;
        }
        // Beyond KEPT a test has failed anyway.
        let _ = self.got.try_push(kind);
        let place = self.armed.iter().position(|armed| *armed == kind);
        place.map(|place| self.armed.remove(place)).is_some()
    }
}

static EXPECTED: IrqLock<Expectation, Expected> = IrqLock::new(Expectation {
    armed: ArrayVec::new_const(),
    got: ArrayVec::new_const(),
    tolerated: None,
});
/// How many are [`Kind::Lost`]. Relaxed: looked at when the test has ended.
static LOST: AtomicUsize = AtomicUsize::new(0);

/// Reports that were printed.
static PRINTED: AtomicUsize = AtomicUsize::new(0);

/// Makes a report: printed, and counted for the test that is running. Whether it was printed,
/// because no test expected it. Task and interrupt context.
pub fn report(kind: Kind, text: fmt::Arguments<'_>) -> bool {
    let expected = EXPECTED.lock().note(kind);
    if !expected {
        PRINTED.fetch_add(1, Ordering::Relaxed);
        console::write(format_args!("{}", Line { kind, text }));
    }
    !expected
}

/// [`report`] for any context, with any locks held: what it needs it only tries for. If the
/// console is in use, its line stands in the middle of another.
pub fn report_without_waiting(kind: Kind, text: fmt::Arguments<'_>) {
    let expected = match EXPECTED.try_lock() {
        Some(mut state) => state.note(kind),
        None => {
            LOST.fetch_add(1, Ordering::Relaxed);
            false
        }
    };
    if !expected {
        PRINTED.fetch_add(1, Ordering::Relaxed);
        console::write_without_waiting(format_args!("{}", Line { kind, text }));
    }
}

struct Line<'a> {
    kind: Kind,
    text: fmt::Arguments<'a>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, cpu) = (self.kind, smp::this_cpu());
        writeln!(f, "=== REPORT {kind:?} on cpu{cpu}: {}", self.text)
    }
}

/// How many reports were printed since boot, because no test expected them.
pub fn printed() -> usize {
    PRINTED.load(Ordering::Relaxed)
}

/// The next report of this kind is not printed.
pub fn expect(kind: Kind) {
    let _ = EXPECTED.lock().armed.try_push(kind);
}

/// Runs `f`; reports of this kind are neither printed nor counted meanwhile, whoever makes them. For what
/// depends on who is faster.
pub fn tolerate<R>(kind: Kind, f: impl FnOnce() -> R) -> R {
    EXPECTED.lock().tolerated = Some(kind);
    let result = f();
    EXPECTED.lock().tolerated = None;
    result
}

/// Ends expectations. How many did not come, and all reports since the last call.
pub fn take_expected() -> (usize, ArrayVec<Kind, KEPT>) {
    let mut state = EXPECTED.lock();
    let missing = state.armed.len();
    state.armed.clear();
    let mut got = core::mem::take(&mut state.got);
    for _ in 0..LOST.swap(0, Ordering::Relaxed) {
        let _ = got.try_push(Kind::Lost);
    }
    (missing, got)
}
