//! The step `threads`: a CPU takes part in running them, or not.

use alloc::string::String;
use core::fmt::Write;

use platform::{CpuId, CpuMask};

use super::steps::Reason;
use crate::{
    sched::{self, State, Thread, table},
    smp,
};

/// Threads that the log names; others are counted.
const NAMED: usize = 4;

/// Threads may be put on the CPU; those that are bound to it come back.
pub(super) fn start(cpu: CpuId) -> Result<(), Reason> {
    sched::start_sharing(cpu);
    Ok(())
}

/// No threads may be put on the CPU, and those that are there go.
pub(super) fn stop(cpu: CpuId) -> Result<(), Reason> {
    say_who_strays(cpu);
    sched::stop_sharing(cpu);
    Ok(())
}

/// Names the threads that may run on no other CPU, and will.
fn say_who_strays(cpu: CpuId) {
    let others = smp::active().without(cpu);
    let strays = |thread: &Thread| {
        let allowed = thread.allowed();
        allowed.contains(cpu)
            && allowed.intersection(others) == CpuMask::EMPTY
            && !thread.stays()
            && !matches!(thread.state(), State::Frozen | State::Ended)
    };
    let (mut names, mut count) = (String::new(), 0);
    for thread in table::all().iter().filter(|thread| strays(thread)) {
        if count < NAMED {
            let comma = if count > 0 { ", " } else { "" };
            let _ = write!(names, "{comma}{}", thread.name);
        }
        count += 1;
    }
    if count > 0 {
        let more = if count > NAMED { ", ..." } else { "" };
        log::info!(
            "hotplug: cpu{cpu} goes; bound to it, and running elsewhere: {count} ({names}{more})"
        );
    }
}
