//! The step `run`: a CPU starts, and stops. Both sides of its [`Word`].

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use platform::{CpuId, CpuMask, Platform};

use super::{
    steps::{self, Reason},
    word::{self, Word},
};
use crate::{
    arch::{cpu as processor, irq, preempt, smp_boot},
    machine::Kernel,
    sched, smp, softirq, time, timer,
};

/// How long a CPU may take to come to rest, in nanoseconds.
static PATIENCE: AtomicU64 = AtomicU64::new(10_000_000_000);
/// How often the controller looks.
const LOOK_NS: u64 = 20_000;

/// The CPU that the timers of one that goes are given to.
static HEIR: AtomicU32 = AtomicU32::new(0);

/// Changes how long a CPU that goes may take to come to rest, in nanoseconds: 10 s at first.
/// What it was.
pub fn set_patience(ns: u64) -> u64 {
    PATIENCE.swap(ns, Ordering::Relaxed)
}

/// Starts a CPU.
pub(super) fn start(cpu: CpuId) -> Result<(), Reason> {
    if !word::change(cpu, Word::Off, Word::Starting) {
        return Err("it has not stopped");
    }
    let give_up = || word::change(cpu, Word::Starting, Word::Off);
    let result = smp_boot::start(cpu, give_up);
    if result.is_err() {
        // Unless that was done while it was waited for.
        give_up();
    }
    result
}

/// Stops a CPU. Threads are not put there any more.
pub(super) fn stop(cpu: CpuId) -> Result<(), Reason> {
    let own = smp::this_cpu();
    // Not the CPU that goes: the controller has left that with all other threads.
    let heir = if own == cpu { CpuId::BOOT } else { own };
    // Relaxed: the word orders it.
    HEIR.store(heir.number(), Ordering::Relaxed);
    if !word::change(cpu, Word::Running, Word::Leaving) {
        return Err("it does not run");
    }
    // It looks at the word whenever it is idle, and after each interrupt then.
    smp::call_many(CpuMask::only(cpu), &preempt::want_switch);
    // Relaxed: a number.
    let deadline = time::now_ns() + PATIENCE.load(Ordering::Relaxed);
    while !word::is(cpu, Word::Off) {
        if time::now_ns() > deadline && word::change(cpu, Word::Leaving, Word::Running) {
            return Err("it does not come to rest");
        }
        sched::sleep_ns(LOOK_NS);
    }
    Ok(())
}

/// A CPU that starts has its own tables. If it took too long, it goes no further: it is about to
/// be reset, and must hold nothing then. Interrupts off.
pub fn arrive(cpu: CpuId) {
    if !word::change(cpu, Word::Starting, Word::Running) {
        processor::halt_forever();
    }
}

/// A CPU that starts has its idle thread, which this is, and goes online. Interrupts off.
pub fn start_here(cpu: CpuId) {
    for step in steps::on_cpu() {
        (step.starting)(cpu);
    }
    smp::join();
    if !Kernel::deferred().is_empty() {
        // Left by an NMI in its last moments; that interrupt is gone with the reset.
        Kernel::raise_deferred();
    }
}

/// The CPU goes offline, if it is to, and if nothing is left for it to do: else this returns.
/// As its idle thread, interrupts off, nothing ready to run.
#[inline]
pub fn go_if_told(cpu: CpuId) {
    if word::is(cpu, Word::Leaving) {
        try_to_go(cpu);
    }
}

#[cold]
fn try_to_go(cpu: CpuId) {
    debug_assert!(!irq::enabled());
    if softirq::is_raised() || !Kernel::deferred().is_empty() {
        // An interrupt that is pending does it, or a thread that it wakes.
        return;
    }
    // The controller's word orders it.
    let heir = CpuId::new(HEIR.load(Ordering::Relaxed)).unwrap_or(CpuId::BOOT);
    timer::hand_over(heir);
    if !word::change(cpu, Word::Leaving, Word::Dying) {
        return;
    }
    if !smp::leave() {
        // Somebody has called it: that interrupt is pending.
        word::set(cpu, Word::Leaving);
        return;
    }
    for step in steps::on_cpu().iter().rev() {
        (step.dying)(cpu);
    }
    sched::leave_for_good(cpu, || word::set(cpu, Word::Off))
}
