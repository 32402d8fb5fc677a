//! RCU in this kernel: the one engine ([`rcu::Rcu`]), its knobs, and where it looks in.
//!
//! | the engine is told | by | in |
//! |---|---|---|
//! | a CPU changes threads, or was asked to | [`note_switch`] | `sched/switch.rs` |
//! | the tick, on CPUs that run a thread | [`tick`] | `sched.rs` |
//! | an interrupt that it asked for | [`interrupted`] | `arch/x86_64/traps.rs` |
//! | a reader's section ended that it asked for | `Rcu::section_ended` | `machine/rcu.rs` |
//! | a CPU comes or goes | `Rcu::cpu_starting` and so on | `hotplug/steps.rs` |
//! | a CPU is idle, or runs [`sched::extended`](crate::sched::extended) | nobody: it reads `sched::eqs` | |
//!
//! Its threads (`rcu_gp`, `rcu_exp`, and an `rcuc` on each CPU) are made by [`init`].

mod config;
mod stall;
pub mod torture;

use alloc::sync::Arc;
use core::{
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

use platform::{CpuId, SpawnError};
use spin::Once;

pub use self::stall::{last_stall, report_misuse, report_stall};
use crate::machine::Kernel;

/// The engine's type.
pub type KernelRcu = rcu::Rcu<Kernel>;

/// Kept for ever.
static RCU: Once<Arc<KernelRcu>> = Once::new();
/// The same, for those who have to be quick: the scheduler looks at each switch.
static QUICK: AtomicPtr<KernelRcu> = AtomicPtr::new(ptr::null_mut());

/// Makes the engine, by the command line, and starts its threads. There are threads and
/// vmalloc; other CPUs take part when they come.
pub fn init() {
    let config = config::from_command_line(&crate::boot::command_line().rcu);
    // SAFETY: the kernel's one engine, told of by the hooks that the module lists, before
    // anything is reclaimed by it.
    let make = || unsafe { KernelRcu::try_new(config) };
    let engine = RCU.call_once(|| make().expect("no memory for RCU"));
    // Before its threads run. Release: who sees the engine sees it whole.
    QUICK.store(Arc::as_ptr(engine).cast_mut(), Ordering::Release);
    engine
        .start()
        .unwrap_or_else(|error| panic!("rcu: {error}"));
    let flavour = if cfg!(feature = "rcu_preemptible") {
        "may be"
    } else {
        "are not"
    };
    log::info!("rcu: started; read-side sections {flavour} preempted");
}

/// The engine. Only after [`init`].
#[inline]
pub fn rcu() -> &'static KernelRcu {
    try_rcu().expect("rcu is used before rcu::init")
}

/// The engine, once it is there.
#[inline(always)]
pub fn try_rcu() -> Option<&'static KernelRcu> {
    // Acquire pairs with the Release in `init`.
    let engine = QUICK.load(Ordering::Acquire);
    // SAFETY: null, or the engine that `RCU` keeps for ever.
    unsafe { engine.as_ref() }
}

/// Makes sure that a CPU has a thread that runs its callbacks. May sleep.
///
/// # Errors
///
/// [`SpawnError`].
pub fn start_thread(cpu: CpuId) -> Result<(), SpawnError> {
    RCU.get().map_or(Ok(()), |engine| engine.cpu_online(cpu))
}

/// Begins a read-side section. Any context.
#[inline(always)]
pub fn read() -> rcu::Guard<Kernel> {
    rcu::read()
}

/// The scheduler is about to leave the running thread, or was asked to; interrupts off, no
/// lock held.
#[inline(always)]
pub fn note_switch() {
    if let Some(rcu) = try_rcu() {
        rcu.note_switch();
    }
}

/// The interrupt by which the engine asks a CPU.
pub fn interrupted() {
    if let Some(rcu) = try_rcu() {
        rcu.interrupted();
    }
}

/// The tick of a CPU that runs a thread; its interrupt.
pub fn tick() {
    if let Some(rcu) = try_rcu() {
        rcu.tick();
    }
}
