//! Soft interrupts: work that an interrupt leaves for its end, done with interrupts on.
//!
//! Each CPU has a word with a bit for each [`Kind`]. [`raise`] sets one; the end of the
//! outermost interrupt runs the functions of all that are set, on the stack of whatever was
//! interrupted, with preemption off. What is raised while they run is run too, for a few
//! rounds; after that, and when a thread raises one outside an interrupt, the CPU's thread
//! `softirq/N` does it, in turn with others, so that a flood cannot starve the threads.

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use platform::{Context, CpuId, MAX_CPUS, Priority, SpawnError};

use crate::{
    arch::{
        irq,
        percpu::PerCpuCell,
        preempt::{self, Interrupt},
    },
    lockdep, percpu,
    sched::{self, Thread},
    smp, timer,
};

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Kind {
    /// Timers whose functions are due.
    Timer = 1 << 0,
    /// For tests.
    Test = 1 << 1,
}

/// Rounds at the end of one interrupt.
const ROUNDS: usize = 10;

percpu! {
    /// Bits of [`Kind`] that are raised.
    static RAISED: u64 = 0;
    /// Functions run at the end of interrupts.
    pub static RUN_IN_INTERRUPT: u64 = 0;
    /// Functions run by the CPU's thread.
    pub static RUN_IN_THREAD: u64 = 0;
}

static THREADS: [AtomicPtr<Thread>; MAX_CPUS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];
/// A `fn()` for [`Kind::Test`]; 0: none.
static TEST: AtomicU64 = AtomicU64::new(0);

/// Makes the functions of `kind` run soon on this CPU. Any context but NMI.
pub fn raise(kind: Kind) {
    let irqs_off = irq::disable();
    RAISED.set(RAISED.get() | kind as u64);
    if preempt::context() == Context::Task {
        wake_thread();
    }
    drop(irqs_off);
}

/// Whether any is raised on this CPU.
pub fn is_raised() -> bool {
    RAISED.get() != 0
}

/// The end of the outermost interrupt, with interrupts off; they are on meanwhile.
pub fn run_at_interrupt_end() {
    preempt::enter(Interrupt::Soft);
    for _ in 0..ROUNDS {
        let raised = take();
        if raised == 0 {
            break;
        }
        irq::enable();
        RUN_IN_INTERRUPT.add(run(raised));
        irq::disable_here();
    }
    lockdep::check_empty(Context::SoftIrq);
    preempt::leave(Interrupt::Soft);
    if is_raised() {
        wake_thread();
    }
}

fn take() -> u64 {
    // Interrupts are off, and only the own CPU raises here.
    let raised = RAISED.get();
    RAISED.set(0);
    raised
}

fn run(raised: u64) -> u64 {
    if raised & Kind::Timer as u64 != 0 {
        timer::run_expired();
    }
    if raised & Kind::Test as u64 != 0 {
        let function = TEST.load(Ordering::Acquire);
        if function != 0 {
            // SAFETY: only `set_test` stores there: a `fn()`.
            let function: fn() = unsafe { core::mem::transmute(function) };
            function();
        }
    }
    u64::from(raised.count_ones())
}

/// What [`Kind::Test`] runs.
pub fn set_test(function: Option<fn()>) {
    TEST.store(
        function.map_or(0, |function| function as usize as u64),
        Ordering::Release,
    );
}

fn wake_thread() {
    let thread = THREADS[smp::this_cpu().index()].load(Ordering::Acquire);
    // SAFETY: the thread never ends. Before it exists (early in boot) what is raised waits
    // for the next interrupt.
    if let Some(thread) = unsafe { thread.as_ref() } {
        sched::unpark(thread);
    }
}

/// Starts the thread of a CPU that has come up, if it is the first time: it stays with the CPU
/// then, and while that is offline nothing is raised there.
///
/// # Errors
///
/// [`SpawnError`].
pub fn start_thread(cpu: CpuId) -> Result<(), SpawnError> {
    if !THREADS[cpu.index()].load(Ordering::Acquire).is_null() {
        return Ok(());
    }
    let thread = sched::Builder::new()
        .stays_on(cpu)
        .priority(Priority::Normal)
        .spawn(format_args!("softirq/{cpu}"), move || serve(cpu))?;
    // Its pointer in THREADS is for ever.
    let own = core::mem::ManuallyDrop::new(thread.thread().clone());
    THREADS[cpu.index()].store(
        core::ptr::from_ref::<Thread>(&own).cast_mut(),
        Ordering::Release,
    );
    // What was raised before nobody could wake it for.
    sched::unpark(&own);
    thread.detach();
    Ok(())
}

fn serve(cpu: CpuId) {
    loop {
        debug_assert_eq!(cpu, smp::this_cpu());
        let irqs_off = irq::disable();
        let raised = take();
        if raised == 0 {
            drop(irqs_off);
            sched::park();
            continue;
        }
        preempt::enter(Interrupt::Soft);
        drop(irqs_off);
        RUN_IN_THREAD.add(run(raised));
        lockdep::check_empty(Context::SoftIrq);
        preempt::leave(Interrupt::Soft);
        sched::yield_now();
    }
}
