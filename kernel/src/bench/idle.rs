//! For how long a CPU had nothing to run.
//!
//! That is the time of its idle thread: halted, with the few hundred instructions of going
//! to sleep and of waking up around it. It counts up to the idle thread's last switch, so
//! it is exact for a thread that reads it on the CPU on which it runs.

use platform::{CpuId, MAX_CPUS};
use spin::Once;

use crate::sched::{self, ThreadRef, table};

/// The idle threads, found once: they live for ever.
static THREADS: [Once<ThreadRef>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];

/// Finds the idle threads. Before it, no CPU seems to be idle. Task context.
pub fn prepare() {
    for thread in table::all() {
        if sched::is_idle(&thread) {
            THREADS[thread.cpu().index()].call_once(|| thread);
        }
    }
}

/// Nanoseconds for which `cpu` had nothing to run, since it started.
#[inline]
pub fn ns(cpu: CpuId) -> u64 {
    THREADS[cpu.index()]
        .get()
        .map_or(0, |thread| thread.ran_ns())
}
