//! A CPU begins to take part in running threads, and ceases to.

use core::sync::atomic::{Ordering, fence};

use platform::{CpuId, CpuMask};

use super::{
    Pinned,
    run_queue::{self, Place},
};
use crate::{arch::preempt, smp};

/// Threads may be put on a CPU, which has just come up. Those that strayed from it because it
/// was offline come back: the ones that wait for a CPU here, others at the latest at their next
/// tick.
pub fn start_sharing(cpu: CpuId) {
    run_queue::set_active(cpu, true);
    for other in smp::active().without(cpu) {
        send_away(other);
    }
    // Those that run look whether they may, and the CPU looks for work.
    smp::call_all(&preempt::want_switch);
}

/// No thread is put on a CPU from here on, but those that stay with it. The ones that wait there
/// go elsewhere; the one that runs does so at the end of an interrupt, or where preemption comes
/// on.
pub fn stop_sharing(cpu: CpuId) {
    run_queue::set_active(cpu, false);
    send_away(cpu);
    smp::call_many(CpuMask::only(cpu), &preempt::want_switch);
    // It may have been asked to take a thread that waits elsewhere, and does not now. SeqCst
    // with the one in `share`: who did not see the change has its thread seen here.
    fence(Ordering::SeqCst);
    let _pinned = Pinned::disable();
    for other in smp::active() {
        run_queue::share(other);
    }
}

/// Puts the threads that wait on a CPU's queue and may not run there on others.
fn send_away(cpu: CpuId) {
    let _pinned = Pinned::disable();
    while let Some(thread) = run_queue::take_stranger(cpu) {
        // Off the queue, so nobody else makes it ready.
        run_queue::make_ready(&thread, Place::Last);
    }
}
