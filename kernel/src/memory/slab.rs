//! The kernel's slab allocator ([`mm::slab`]).
//!
//! | state | who moves it | who may use [`slabs()`] |
//! |---|---|---|
//! | none | nobody yet | nobody; `alloc` uses the boot heap |
//! | there | [`start`], by the boot CPU alone with interrupts off, once | everybody, for ever; `alloc` uses kmalloc |
//!
//! `READY` is written with Release after the allocator has started, and other CPUs are started
//! after that: whoever runs after that sees it whole. What it gets later, as the kernel comes up:
//! what the command line switches on and its place among the shrinkers ([`join`], when there are
//! threads), and the engine of RCU ([`set_rcu`]).

use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    sync::atomic::{AtomicBool, Ordering},
};

use mm::{Gfp, kvfree_rcu::Vmalloc, slab::Slabs};
use platform::{Context, CpuId, Platform, SpawnError};

use super::{
    debug, mm,
    vmalloc::{try_vmalloc, vmalloc},
};
use crate::{arch::tsc, boot, machine::Kernel, rcu::rcu};

/// The allocator's type.
pub type KernelSlabs = Slabs<Kernel>;

struct Cell(UnsafeCell<MaybeUninit<KernelSlabs>>);

// SAFETY: written once, before `READY` and before other CPUs run; only read after.
unsafe impl Sync for Cell {}

static SLABS: Cell = Cell(UnsafeCell::new(MaybeUninit::uninit()));
static READY: AtomicBool = AtomicBool::new(false);

/// The allocator. Only after [`start`], which checked builds look after.
#[inline(always)]
pub fn slabs() -> &'static KernelSlabs {
    // Relaxed: a check, which orders nothing; see the module.
    debug_assert!(
        READY.load(Ordering::Relaxed),
        "slabs are asked for before there are any"
    );
    // SAFETY: written by `start`, which came before (see the module).
    unsafe { (*SLABS.0.get()).assume_init_ref() }
}

/// The allocator, once there is one.
#[inline(always)]
pub fn try_slabs() -> Option<&'static KernelSlabs> {
    // Acquire pairs with the Release in `start`.
    if READY.load(Ordering::Acquire) {
        Some(slabs())
    } else {
        None
    }
}

/// Makes the allocator, as the command line wants it, and moves `alloc` from the boot heap to
/// it. Boot CPU, once, when there are a page allocator and per-CPU memory, and before anything
/// runs beside it.
#[inline(never)]
pub fn start() {
    assert!(!READY.load(Ordering::Relaxed), "slabs start once only");
    // SAFETY: nobody reads it before READY, and only the boot CPU comes here, once. The page
    // allocator is there for ever.
    let slabs = unsafe { Slabs::new_in(&mut *SLABS.0.get(), mm()) };
    let line = boot::command_line().slab;
    slabs.debug().set_seed(tsc::read());
    slabs.debug().set_hardened(line.hardened);
    slabs.debug().set_shuffled(line.random);
    if let Some(text) = line.debug
        && let Err(error) = slabs.debug().set_slub_debug(text)
    {
        log::warn!("slab: slub_debug: {error}");
    }
    // SAFETY: once; a static stays where it is.
    unsafe { slabs.start() }.unwrap_or_else(|error| panic!("slab: {error}"));
    // Release pairs with the Acquire in `try_slabs`.
    READY.store(true, Ordering::Release);
    log::info!(
        "slab: started; the boot heap keeps {} bytes",
        crate::heap::usage().0
    );
}

/// What takes threads: the rest of what the command line switches on, and giving memory back
/// when it is short.
pub fn join() {
    let line = boot::command_line().slab;
    if line.init_on_alloc {
        slabs().set_zero_on_alloc(true);
    }
    if line.init_on_free {
        slabs().set_zero_on_free(true);
    }
    if line.quarantine > 0 {
        slabs().set_quarantine(line.quarantine as usize);
    }
    if let Some(faults) = line.faults {
        slabs().faults(|points| points.attr.configure(&debug::knobs(faults)));
    }
    if mm().register_shrinker(slabs()).is_err() {
        log::warn!("slab: no room for its shrinker");
    }
}

/// There is an engine of RCU: from now on `kfree_rcu` frees.
pub fn set_rcu() {
    slabs().kvfree_rcu().set_vmalloc(&VMALLOC);
    // SAFETY: the engine is there for ever, and so is the allocator.
    unsafe { slabs().set_rcu(rcu()) };
    if let Err(error) = start_drainer(Kernel::current_cpu()) {
        panic!("kfree_rcu: {error}");
    }
    if mm().register_shrinker(slabs().kvfree_rcu()).is_err() {
        log::warn!("kfree_rcu: no room for its shrinker");
    }
}

/// Memory of vmalloc, which may be given to `kfree_rcu`.
static VMALLOC: Vmalloc = Vmalloc {
    is_vmalloc: |address| try_vmalloc().is_some_and(|vmalloc| vmalloc.is_vmalloc(address)),
    vfree: |memory| {
        // SAFETY: as who gave it promised.
        unsafe { vmalloc().vfree(memory) };
    },
};

/// Makes sure that a CPU has a thread that frees what waited for a grace period. May sleep.
///
/// # Errors
///
/// [`SpawnError`].
pub fn start_drainer(cpu: CpuId) -> Result<(), SpawnError> {
    try_slabs().map_or(Ok(()), |slabs| slabs.start_drainer(cpu))
}

/// Gives back the sheaves of a CPU that has gone: a step of hotplug.
pub fn flush_offline(cpu: CpuId) {
    // SAFETY: the CPU has said that it is off, which comes after all that it did, and it is
    // not started before this is over: both are the controller's to see.
    unsafe { slabs().flush_offline(cpu) };
}

/// How an allocation may go about it here; `None`: in an NMI, where only what is
/// [made for that](Slabs::kmalloc_nolock) may be used. No report if there is no memory: who can
/// not do without panics.
#[inline]
pub fn gfp_here() -> Option<Gfp> {
    if Kernel::may_sleep() {
        Some(Gfp::KERNEL | Gfp::NOWARN)
    } else if in_nmi() {
        None
    } else {
        Some(Gfp::ATOMIC | Gfp::NOWARN)
    }
}

/// Whether this is an NMI.
#[inline]
pub fn in_nmi() -> bool {
    Kernel::context() == Context::Nmi
}
