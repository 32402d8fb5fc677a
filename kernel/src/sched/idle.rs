//! A CPU with nothing to run: no tick, asleep until an interrupt. Here it also goes offline,
//! if it is to ([`hotplug::go_if_told`]).

use core::sync::atomic::{AtomicPtr, Ordering};

use alloc::{boxed::Box, sync::Arc};
use platform::{Context, CpuId, MAX_CPUS, eqs::Eqs};

use super::{
    run_queue,
    spawn::{self, Builder},
    switch,
    thread::{State, Thread},
};
use crate::{
    arch::{cpu as processor, irq, preempt},
    hotplug, lockdep, smp, timer,
};

static THREADS: [AtomicPtr<Thread>; MAX_CPUS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];

/// Which CPUs are idle, for RCU to read from afar. A CPU's word is even from when its idle
/// loop begins to sleep until it ends, and in [`extended`], but for interrupts.
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

/// A CPU that has just started: what runs becomes its idle thread, for ever. One that was
/// online before has its idle thread of then. Interrupts off, preemption off once.
pub fn become_idle() -> ! {
    let cpu = smp::this_cpu();
    // SAFETY: an idle thread never ends.
    match unsafe { THREADS[cpu.index()].load(Ordering::Acquire).as_ref() } {
        Some(thread) => switch::adopt(thread),
        None => note(
            cpu,
            &spawn::adopt(format_args!("idle/{cpu}"), cpu, Builder::idle(cpu)),
        ),
    }
    eqs(cpu).idle_exit();
    hotplug::start_here(cpu);
    irq::enable();
    run(cpu)
}

/// The CPU, which is offline, stops for good: until it is reset. `told`: its last word. On its
/// idle thread, interrupts off.
pub fn leave_for_good(cpu: CpuId, told: impl FnOnce()) -> ! {
    run_queue::idle_ends(cpu);
    switch::current().note_state(State::Asleep);
    lockdep::check_empty(Context::Task);
    eqs(cpu).idle_enter();
    told();
    processor::halt_forever()
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
            hotplug::go_if_told(cpu);
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

/// Runs `f` as an extended quiescent state: a stretch of work (a busy wait, or what stands in
/// for user mode) in which nothing that RCU protects is read, so no grace period waits for it or
/// interrupts it. Preemption is off meanwhile; interrupts are served, and may read. A thread
/// with preemption and interrupts on.
///
/// # Panics
///
/// If preemption or interrupts are off, which is a section, or it is nested.
pub fn extended<R>(f: impl FnOnce() -> R) -> R {
    assert!(
        super::may_sleep(),
        "an extended quiescent state within a section"
    );
    let _pinned = super::Pinned::disable();
    let eqs = eqs(smp::this_cpu());
    let irqs_off = irq::disable();
    eqs.idle_enter();
    drop(irqs_off);
    let result = f();
    let irqs_off = irq::disable();
    eqs.idle_exit();
    drop(irqs_off);
    result
}

/// A CPU changes threads: from or to its idle thread, the tick begins.
pub(super) fn change(cpu: CpuId, from_idle: bool) {
    if from_idle {
        run_queue::idle_ends(cpu);
        timer::start_tick();
    }
}
