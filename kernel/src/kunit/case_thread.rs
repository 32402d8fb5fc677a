//! A case's thread: bound to the boot CPU, watched, and taken out of the running if it hangs.

use alloc::string::String;
use core::fmt;

use kernel_base::rng::Rng;
use platform::{CpuId, SpawnError};
use rcu::Machine;

use super::{Ctx, Outcome, output};
use crate::{
    arch::{backtrace, irq, preempt},
    machine::Kernel,
    sched::{self, Builder, ThreadRef},
    symbols, time, watchdog,
};

/// How much longer than a case the watchdog waits, which ends the guest.
const GRACE_NS: u64 = 3_000_000_000;
/// How long a thread that is being frozen may take to leave its CPU.
const FREEZE_NS: u64 = 1_000_000_000;

/// How a case's function came back.
pub struct Ended {
    pub outcome: Outcome,
    irqs_on: bool,
    preempt_depth: u32,
    sections: u32,
}

impl Ended {
    /// Says what it left turned off; whether nothing was.
    pub fn report(&self, name: &str) -> bool {
        if !self.irqs_on {
            output::diagnostic(format_args!("{name}: came back with interrupts disabled"));
        }
        if self.preempt_depth != 0 {
            output::diagnostic(format_args!(
                "{name}: came back with preemption off {} times",
                self.preempt_depth
            ));
        }
        if self.sections != 0 {
            output::diagnostic(format_args!(
                "{name}: came back in {} read-side sections",
                self.sections
            ));
        }
        self.irqs_on && self.preempt_depth == 0 && self.sections == 0
    }
}

/// Why a case did not come back.
pub enum Failure {
    /// There is no thread for it.
    NotStarted(SpawnError),
    /// It took too long, and was taken out of the running.
    Hung,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => write!(f, "not started: {error}"),
            Self::Hung => f.write_str("TIMED OUT, and parked for good: it holds nothing"),
        }
    }
}

/// Runs a case. One that hangs and can be left for good is; any other hang ends the guest.
pub fn run(
    name: &str,
    seed: u64,
    timeout_ns: u64,
    body: impl FnOnce(&mut Ctx) -> Outcome + Send + 'static,
) -> Result<Ended, Failure> {
    // Before the case begins: it may keep a CPU from being called until a thread runs that waits for
    // this one.
    watchdog::arm(timeout_ns.saturating_add(GRACE_NS), String::from(name));
    let thread = Builder::new()
        .on(CpuId::BOOT)
        .spawn(format_args!("{name}"), move || {
            let mut ctx = Ctx {
                rng: Rng::new(seed),
            };
            let outcome = body(&mut ctx);
            let ended = Ended {
                outcome,
                irqs_on: irq::enabled(),
                preempt_depth: preempt::depth(),
                sections: Kernel::reader_depth(),
            };
            // The thread's end needs all of them undone.
            while Kernel::reader_depth() > 0 {
                Kernel::read_exit();
            }
            while preempt::depth() > 0 {
                preempt::enable_no_switch();
            }
            irq::enable();
            ended
        })
        .map_err(|error| {
            watchdog::disarm();
            Failure::NotStarted(error)
        })?;
    let deadline = time::now_ns().saturating_add(timeout_ns);
    let result = match thread.join_until(deadline) {
        Ok(ended) => Ok(ended),
        Err(thread) => {
            park_for_good(name, thread.thread());
            thread.detach();
            Err(Failure::Hung)
        }
    };
    watchdog::disarm();
    result
}

/// Takes the thread out of the running, or, if that cannot be, ends the guest.
fn park_for_good(name: &str, thread: &ThreadRef) {
    sched::freeze(thread);
    let start = time::now_ns();
    while sched::is_on_cpu(thread) {
        if time::now_ns() - start > FREEZE_NS {
            watchdog::expire("runs with preemption off");
        }
        sched::sleep_ns(1_000_000);
    }
    if thread.holds_locks() {
        watchdog::expire("holds locks");
    }
    if thread.is_reading() {
        watchdog::expire("is in a read-side section");
    }
    output::diagnostic(format_args!("{name}: it was at"));
    // SAFETY: the thread is frozen and has left its CPU: nobody uses its stack.
    let start = unsafe { sched::saved_start(thread) };
    backtrace::walk(start, |address| match symbols::resolve(address - 1) {
        Some(symbol) => output::diagnostic(format_args!("  {:#018x} {symbol}", address - 1)),
        None => output::diagnostic(format_args!("  {:#018x} ?", address - 1)),
    });
}
