//! The order checker ([`platform::lockdep`]) on this machine: what the locks of checked
//! builds tell, and where its findings go.
//!
//! Each thread carries what it holds, with the interrupts on top of it; before there are
//! threads, the CPU does. A finding is a kernel report like any other, but may come up where
//! nothing may be waited for: in an NMI, with a lock held that reporting takes, or within a
//! report. Then it goes by tries alone, and straight to the port if they fail.

use core::{fmt, panic::Location};

use platform::{
    Acquisition, Context, MAX_CPUS, Platform,
    lock::{Class, LockClass},
    lockdep::{Checker, Held, MAX_HELD, Now, Report},
};

use crate::{
    arch::{percpu::PerCpuCell, preempt},
    machine::Kernel,
    percpu,
    report::{self, Kind},
    sched, smp,
    sync::Expected,
};

/// Whether this build checks its locks.
pub const ENABLED: bool = Kernel::CHECK_LOCKS;

/// What the locks have shown.
pub static CHECKER: Checker = Checker::new();

/// For each CPU what it holds until it runs threads.
static EARLY: [Held; MAX_CPUS] = [const { Held::new() }; MAX_CPUS];

percpu! {
    /// How many reports this CPU is making, one within another.
    static REPORTING: u64 = 0;
}

/// What a caller of the checker hands it to speak by.
type Sink<'a> = &'a mut dyn FnMut(&Report<'_>);

/// Calls `f` with what the running thread holds.
#[inline]
fn with_held<R>(f: impl FnOnce(&Held) -> R) -> R {
    let thread = sched::try_current();
    match thread.as_ref().and_then(|thread| thread.held()) {
        Some(held) => f(held),
        None => f(&EARLY[smp::this_cpu().index()]),
    }
}

#[inline]
fn ask(f: impl FnOnce(&Held, &Now, Sink<'_>)) {
    with_held(|held| f(held, &Now::of::<Kernel>(), &mut tell));
}

/// A lock is about to be taken, or a try has taken it.
#[inline]
pub fn acquire(acquisition: &Acquisition) {
    ask(|held, now, sink| CHECKER.acquire(held, acquisition, now, sink));
}

/// A lock is about to be released.
#[inline]
pub fn release(class: &'static LockClass, lock: usize) {
    ask(|held, now, sink| CHECKER.release(held, class, lock, now, sink));
}

/// What follows may sleep. In all builds: where the scheduler is about to, no locks are
/// needed to see that it may not.
pub fn might_sleep(at: &'static Location<'static>) {
    if ENABLED {
        ask(|held, now, sink| CHECKER.might_sleep(held, at, now, sink));
    } else if !sched::may_sleep() {
        report::report(
            Kind::Lock(platform::lockdep::Kind::SleepInAtomic),
            format_args!(
                "sleeping in atomic at {at}: {:?} context, preemption off {} times",
                preempt::context(),
                preempt::depth(),
            ),
        );
    }
}

/// The running thread ends or its CPU goes idle (`context` is `Task`), or a handler of
/// `context` ends: nothing that it took may be left.
#[inline]
pub fn check_empty(context: Context) {
    if !ENABLED {
        return;
    }
    with_held(|held| {
        if held.depth() != 0 {
            CHECKER.check_empty(held, context, &Now::of::<Kernel>(), &mut tell);
        }
    });
}

/// No more checks: the kernel panics, and its locks are in no order any more.
pub fn stop() {
    if ENABLED {
        CHECKER.stop();
    }
}

/// A lock's own word shows that it is used against its rules.
pub fn report_word(what: fmt::Arguments<'_>) {
    report_anywhere(Kind::LockWord, what);
}

/// Makes a report, in any context and with any locks held: it waits for those of reporting
/// only where it may.
pub fn report_anywhere(kind: Kind, what: fmt::Arguments<'_>) {
    with_held(|held| say(kind, preempt::context(), held, what));
}

fn tell(found: &Report<'_>) {
    say(
        Kind::Lock(found.finding.kind()),
        found.now.context,
        found.held,
        format_args!("{found}"),
    );
}

fn say(kind: Kind, context: Context, held: &Held, text: fmt::Arguments<'_>) {
    // The flag is this CPU's; and a report is no place to be switched away from.
    let _pinned = sched::Pinned::disable();
    let first = REPORTING.get() == 0;
    REPORTING.add(1);
    if first && may_wait_to_report(context, held) {
        report::report(kind, text);
    } else {
        report::report_without_waiting(kind, text);
    }
    REPORTING.add(1_u64.wrapping_neg());
}

/// Whether the locks of reports and of the console may be waited for here: not in an NMI,
/// which may have interrupted their holder, and not by one who has them.
fn may_wait_to_report(context: Context, held: &Held) -> bool {
    context != Context::Nmi
        && held.depth() <= MAX_HELD
        && held.locks().all(|lock| lock.class.level < Expected::LEVEL)
}
