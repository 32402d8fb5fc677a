//! What the engine finds wrong, as kernel reports.

use core::fmt;

use arrayvec::ArrayVec;
use platform::CpuMask;
use rcu::Stall;

use crate::{
    arch::nmi_backtrace::{self, Answers, Frames},
    lockdep,
    report::{self, Kind},
    sched::{self, table},
    sync::{IrqLock, RcuStall},
    time,
};

/// Threads whose stacks are shown with a stall.
const MOST_THREADS: usize = 16;

/// The last stall that was reported, for the shell.
#[derive(Debug, Clone, Copy)]
pub struct LastStall {
    /// How many there were.
    pub count: u64,
    /// When.
    pub at_ns: u64,
    /// CPUs that the grace period waited for.
    pub cpus: CpuMask,
    /// For the first of them, the number of the thread that ran there, if it said so.
    pub on_cpu: Option<u32>,
    /// The first of the threads that were switched away in a section.
    pub switched_away: Option<u32>,
}

static LAST: IrqLock<Option<LastStall>, RcuStall> = IrqLock::new(None);

/// The last stall that was reported. Task and interrupt context.
pub fn last_stall() -> Option<LastStall> {
    *LAST.lock()
}

/// A grace period does not end: says so, with the stacks of the CPUs that it waits for and of
/// the threads that were switched away in a section. Task and interrupt context.
pub fn report_stall(stall: &Stall) {
    // First, while they are still there.
    let answers = nmi_backtrace::ask(stall.cpus());
    note(stall, answers.as_ref());
    let printed = report::report(Kind::RcuStall, format_args!("{stall}"));
    if !printed {
        return;
    }
    match &answers {
        Some(answers) => answers.print(),
        None => crate::println!("no stacks of CPUs: they are being shown for somebody else"),
    }
    let mut numbers: ArrayVec<u32, MOST_THREADS> = ArrayVec::new();
    let mut more = 0;
    for number in stall.threads() {
        more += usize::from(numbers.try_push(number).is_err());
    }
    for number in numbers {
        print_thread(number);
    }
    if more > 0 {
        crate::println!("and {more} more threads");
    }
}

fn note(stall: &Stall, answers: Option<&Answers>) {
    let first = stall.cpus().first();
    let answer = first.and_then(|cpu| answers?.of(cpu));
    let mut last = LAST.lock();
    let before = last.map_or(0, |last| last.count);
    *last = Some(LastStall {
        count: before + 1,
        at_ns: time::now_ns(),
        cpus: stall.cpus(),
        on_cpu: answer.and_then(|answer| answer.thread()),
        switched_away: stall.threads().next(),
    });
}

/// The stack of a thread that no CPU runs, as far as can be seen.
fn print_thread(number: u32) {
    let mut left = None;
    let known = table::with(number, |thread| {
        left = sched::left_at(thread).map(Frames::from);
        (thread.name, thread.state(), thread.cpu())
    });
    match (known, left) {
        (Some((name, state, cpu)), Some(frames)) => {
            crate::print!("backtrace of thread {number} '{name}' ({state:?}, cpu{cpu}):\n{frames}");
        }
        (Some((name, state, cpu)), None) => {
            crate::println!("thread {number} '{name}' ({state:?}, cpu{cpu})");
        }
        (None, _) => crate::println!("thread {number} has ended"),
    }
}

/// Something is wrong with the use of RCU. Any context.
pub fn report_misuse(what: fmt::Arguments<'_>) {
    lockdep::report_anywhere(Kind::Rcu, what);
}
