//! Threads and who runs when.
//!
//! Every CPU has a queue of ready threads, a list for each of four priorities. The first of
//! the highest list runs; those of one list take turns of a tick's length. A thread that
//! becomes ready goes to a CPU with nothing to do, if it may run there, else to where it ran
//! last; a CPU with nothing to do takes what waits elsewhere. Preemption: at the end of an
//! interrupt, or when preemption comes on (`arch::preempt`), if a thread that goes first is
//! ready, or the turn is over.
//!
//! Sleeping and waking is one word a thread ([`platform::park`]); changing threads is in
//! `switch`.
//!
//! | lock | protects | order |
//! |---|---|---|
//! | `run_queue::QUEUES[cpu].lists` | the CPU's ready threads | innermost; one at a time |
//! | `table::LIVE` | who is alive | no other under it |
//! | `stack_pool::POOL` | which stacks are free | no other under it |
//! | `Thread::end` | who joins the thread | no other under it |

mod exit;
mod idle;
mod run_queue;
mod sharing;
mod spawn;
mod stack_pool;
mod switch;
pub mod table;
mod thread;

use core::sync::atomic::Ordering;

use ::rcu::Machine;
use platform::{CpuId, CpuMask, Priority};

pub use idle::{become_idle, eqs, extended, is_idle, leave_for_good};
pub use run_queue::ready_count;
pub use sharing::{start_sharing, stop_sharing};
pub use spawn::{Builder, JoinHandle};
pub use stack_pool::free_unused as free_unused_stacks;
pub use switch::{
    SWITCHES, current, current_stretch_ns, park, preempt, preempt_from_interrupt, running_on,
    try_current, yield_now,
};
pub use thread::{NAME_LEN, State, Thread, ThreadRef};

use crate::{
    arch::{backtrace, context, irq, preempt},
    machine::Kernel,
    rcu, smp, time, timer,
};

/// Makes the boot CPU's code a thread and gives the CPU an idle thread. From here on there
/// are threads.
pub fn init() {
    let main = spawn::adopt(format_args!("main"), CpuId::BOOT, Builder::new());
    run_queue::note_running(CpuId::BOOT, &main);
    idle::make_for_boot_cpu();
    timer::start_tick();
    // A CPU begins with preemption off; now there is something to switch to.
    preempt::enable();
}

/// A handle to the thread that runs this.
pub fn current_ref() -> ThreadRef {
    // SAFETY: the thread runs this code, so it is alive.
    unsafe { current().handle() }
}

/// Wakes a thread, or lets its next [`park`] return at once. Not from NMI.
pub fn unpark(thread: &Thread) {
    if thread.wake.wake() {
        let _no_switch = Pinned::disable();
        // The word says that nobody else does, and that its registers are saved.
        run_queue::make_ready(thread, run_queue::Place::Last);
    }
}

/// [`park`], at most until [`time::now_ns`] is `deadline_ns`.
pub fn park_until(deadline_ns: u64) {
    if time::now_ns() >= deadline_ns {
        return;
    }
    let current = current();
    // SAFETY: the thread is alive until it ends, which it does not before `cancel`.
    unsafe { timer::arm_alarm(&current.alarm, &current, deadline_ns) };
    park();
    timer::cancel_alarm(&current.alarm);
}

/// Sleeps until [`time::now_ns`] is at least `deadline_ns`.
pub fn sleep_until(deadline_ns: u64) {
    while time::now_ns() < deadline_ns {
        park_until(deadline_ns);
    }
}

/// Sleeps for `ns` nanoseconds.
pub fn sleep_ns(ns: u64) {
    sleep_until(time::now_ns().saturating_add(ns));
}

/// Moves the thread that runs this to other CPUs; on one of them when it returns, unless all
/// of them went offline meanwhile.
pub fn move_to(allowed: CpuMask) {
    let possible = allowed.intersection(smp::active());
    assert!(!possible.is_empty(), "no CPU of {allowed} is online");
    current().set_allowed(allowed);
    while !current().may_run_on(smp::this_cpu()) {
        yield_now();
    }
}

/// Takes a thread out of the running for good: it is never taken up again. Its stack and
/// what it owns stay. For a test that hangs.
pub fn freeze(thread: &Thread) {
    // Relaxed: the interrupt below makes its CPU look.
    thread.frozen.store(true, Ordering::Relaxed);
    smp::call_many(CpuMask::only(thread.cpu()), &preempt::want_switch);
}

/// Whether some CPU is on the thread.
pub fn is_on_cpu(thread: &Thread) -> bool {
    smp::online()
        .iter()
        .any(|cpu| running_on(cpu).is_some_and(|running| core::ptr::eq(running, thread)))
}

/// Whether a CPU has nothing to run, as far as can be seen from here.
pub fn is_cpu_idle(cpu: CpuId) -> bool {
    run_queue::idle_cpus().contains(cpu)
}

/// Where a thread that no CPU runs was left.
///
/// # Safety
///
/// No CPU may take the thread up meanwhile.
pub unsafe fn saved_start(thread: &Thread) -> backtrace::Start {
    // SAFETY: nobody runs it, so its stack pointer is saved and nobody writes it.
    let (rip, rbp) = unsafe { context::saved_frame(*thread.saved_rsp.get()) };
    backtrace::Start { rip, rbp }
}

/// Where a thread was left that no CPU runs, at a glance: a CPU may take it up meanwhile, and
/// then this is some place of its stack. `None`: it has no stack of its own, or runs. The
/// thread is alive.
pub fn left_at(thread: &Thread) -> Option<backtrace::Start> {
    let stack = thread.own_stack?;
    // SAFETY: an aligned word of the thread; whoever writes it meanwhile writes it whole.
    let rsp = unsafe { thread.saved_rsp.get().read_volatile() };
    let saved = context::SAVED_LEN;
    let is_saved = rsp.is_multiple_of(8) && (stack.bottom..=stack.top - saved).contains(&rsp);
    if thread.state() == State::Running || !is_saved {
        return None;
    }
    // SAFETY: within the thread's stack, which is mapped while it is alive.
    let (rip, rbp) = unsafe { context::saved_frame_now(rsp) };
    Some(backtrace::Start { rip, rbp })
}

/// Ends the running thread's turn: others of its priority run first, if there are any. What
/// a seeded schedule does; others call [`yield_now`].
pub fn let_others_run() {
    switch::end_turn();
    preempt();
}

/// Runs the calling thread with another priority until the result is dropped.
pub fn with_priority(priority: Priority) -> PriorityGuard {
    let current = current();
    let before = current.priority();
    current.set_priority(priority);
    PriorityGuard(before)
}

/// Restores a thread's priority.
#[must_use = "the priority is restored when this is dropped"]
#[derive(Debug)]
pub struct PriorityGuard(Priority);

impl Drop for PriorityGuard {
    fn drop(&mut self) {
        current().set_priority(self.0);
    }
}

/// What the timer interrupt calls while a thread runs.
pub fn tick() {
    preempt::check();
    rcu::tick();
    let cpu = smp::this_cpu();
    let current = current();
    if current_stretch_ns(cpu) >= timer::TICK_NS && run_queue::contended(cpu, &current)
        || current.frozen.load(Ordering::Relaxed)
        || !current.may_run_on(cpu)
    {
        switch::end_turn();
    }
}

/// Whether this code may sleep: a thread with interrupts and preemption on, in no read-side
/// section.
pub fn may_sleep() -> bool {
    preempt::is_preemptible()
        && irq::enabled()
        && try_current().is_some()
        && Kernel::reader_depth() == 0
}

/// Preemption is off while it lives.
pub type Pinned = platform::Preempt<Kernel>;
