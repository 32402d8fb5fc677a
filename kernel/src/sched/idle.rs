//! A CPU with nothing to run: no tick, asleep until an interrupt.

use core::sync::atomic::{AtomicPtr, Ordering};

use alloc::{boxed::Box, sync::Arc};
use platform::{Context, CpuId, CpuMask, MAX_CPUS, Priority, eqs::Eqs};

use super::{run_queue, spawn, switch, thread::Thread};
use crate::{
    arch::{irq, preempt},
    lockdep, smp, timer,
};

static THREADS: [AtomicPtr<Thread>; MAX_CPUS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];

/// Which CPUs are idle, for RCU to read from afar. A CPU's word is even from when its idle
/// loop begins to sleep until it ends, but for interrupts.
static EQS: [Eqs; MAX_CPUS] = [const { Eqs::new() }; MAX_CPUS];

/// A CPU's extended quiescent state: written by the CPU, read by all.
pub fn eqs(cpu: CpuId) -> &'static Eqs {
    &EQS[cpu.index()]
}

/// A CPU's idle thread. It never ends.
pub(super) fn thread_of(cpu: CpuId) -> *const Thread {
    // Acquire pairs with the Release in `note`.
    let thread = THREADS[cpu.index()].load(Ordering::Acquire);
    assert!(!thread.is_null(), "cpu{cpu} has no idle thread yet");
    thread
}

fn note(cpu: CpuId, thread: &Arc<Thread>) {
    THREADS[cpu.index()].store(Arc::as_ptr(thread).cast_mut(), Ordering::Release);
}

/// Whether a thread is some CPU's idle thread.
pub fn is_idle(thread: &Thread) -> bool {
    THREADS
        .iter()
        .any(|idle| core::ptr::eq(idle.load(Ordering::Acquire), thread))
}

/// Makes the idle thread of the CPU whose own stack another thread has: the boot CPU.
pub(super) fn make_for_boot_cpu() {
    let cpu = CpuId::BOOT;
    let thread = spawn::aside(
        format_args!("idle/{cpu}"),
        cpu,
        Box::new(move || {
            preempt::disable();
            run(cpu)
        }),
    );
    note(cpu, &thread);
    let _irqs_off = irq::disable();
    // The CPU has been running, but nobody looked so far.
    eqs(cpu).idle_exit();
}

/// A CPU that has just started: what runs becomes its idle thread, for ever. Interrupts off,
/// preemption off once.
pub fn become_idle() -> ! {
    let cpu = smp::this_cpu();
    let thread = spawn::adopt(
        format_args!("idle/{cpu}"),
        cpu,
        CpuMask::only(cpu),
        Priority::Low,
    );
    note(cpu, &thread);
    eqs(cpu).idle_exit();
    smp::mark_online(cpu);
    irq::enable();
    run(cpu)
}

/// Preemption off once, for ever: an idle thread is left only where it says so.
fn run(cpu: CpuId) -> ! {
    loop {
        run_queue::idle_begins(cpu);
        // Here, not before: what was made ready before the line above is found by this, and
        // what is made ready after it brings an interrupt.
        if switch::leave_idle() {
            // Something ran meanwhile, and this CPU did not count as idle.
            continue;
        }
        let irqs_off = irq::disable();
        if !preempt::switch_wanted() && !run_queue::has_ready(cpu) {
            timer::stop_tick();
            lockdep::check_empty(Context::Task);
            eqs(cpu).idle_enter();
            // Interrupts come on and the CPU sleeps in one step.
            irq::enable_and_wait();
            irq::disable_here();
            eqs(cpu).idle_exit();
        }
        drop(irqs_off);
    }
}

/// A CPU changes threads: from or to its idle thread, the tick begins.
pub(super) fn change(cpu: CpuId, from_idle: bool) {
    if from_idle {
        run_queue::idle_ends(cpu);
        timer::start_tick();
    }
}
