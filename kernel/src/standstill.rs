//! All CPUs but one stand still, where an interrupt comes upon them, and go on unharmed: for
//! who looks at what the others change.
//!
//! | state | left by | to |
//! |---|---|---|
//! | gathering: CPUs arrive and wait, with interrupts off | the leader, all being there | still |
//! | | the leader, tired of waiting | over |
//! | still: the leader does what it came for | the leader, done | over |
//! | over: CPUs go on | each by itself | |
//!
//! A CPU is stopped where interrupts are on. So none is while it holds a spin lock that turns
//! them off; it may hold any other lock. NMIs are still taken.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use platform::wait::ReadGuard;

use crate::{machine::Kernel, sched::Pinned, smp, sync::Hotplug, time};

/// How long others are waited for. Under emulation the host may keep a CPU that long.
const PATIENCE_NS: u64 = 10_000_000_000;

/// The leader's work and what came of it.
struct Leader<F, R>(UnsafeCell<(Option<F>, Option<R>)>);

// SAFETY: only the leader touches it, on the CPU where it is pinned.
unsafe impl<F, R> Sync for Leader<F, R> {}

impl<R, F: FnOnce() -> R> Leader<F, R> {
    /// Does the work.
    ///
    /// # Safety
    ///
    /// Called once, by the leader.
    unsafe fn work(&self) {
        // SAFETY: the only access until it is over.
        let (work, result) = unsafe { &mut *self.0.get() };
        *result = work.take().map(|work| work());
    }
}

/// Runs `work` on this CPU with interrupts off, while all others stand still. `None`: one did
/// not come within ten seconds, and nothing was done. `_online`: none comes or goes meanwhile.
/// Task context with interrupts on, without spinning locks; `work` may neither sleep nor wait for
/// another CPU.
pub fn with<R>(
    _online: &ReadGuard<'_, (), Kernel, Hotplug>,
    work: impl FnOnce() -> R,
) -> Option<R> {
    let pinned = Pinned::disable();
    let own = smp::this_cpu();
    let others = smp::online().without(own).count();
    let (arrived, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let leader = Leader(UnsafeCell::new((Some(work), None)));
    smp::call_all(&|| {
        if smp::this_cpu() != own {
            // Release: who counts this CPU sees what it did before.
            arrived.fetch_add(1, Ordering::Release);
            // Acquire: this CPU sees what was done meanwhile.
            while !over.load(Ordering::Acquire) {
                core::hint::spin_loop();
            }
            return;
        }
        let deadline = time::now_ns() + PATIENCE_NS;
        let all_there = loop {
            // Acquire pairs with the Release above.
            if arrived.load(Ordering::Acquire) as usize == others {
                break true;
            }
            if time::now_ns() > deadline {
                break false;
            }
            core::hint::spin_loop();
        };
        if all_there {
            // SAFETY: the leader's CPU, which comes here once.
            unsafe { leader.work() };
        }
        over.store(true, Ordering::Release);
    });
    drop(pinned);
    leader.0.into_inner().1
}
