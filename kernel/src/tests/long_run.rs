//! What suites share that do everything at once for a set time: the parts of a long run,
//! and CPUs that go and come meanwhile.

use alloc::{format, string::String};

use kernel_base::rng::Rng;
use platform::{CpuId, CpuMask};

use crate::{
    boot, hotplug,
    kunit::{self, Values},
    smp, time,
};

/// Parts of a long run where there are this many CPUs: ten minutes, of half a minute each.
const PARTS: usize = 20;
const MANY: usize = 8;

/// A long run is cut into parts, so that each ends within the time of a case, and what is
/// wrong is found soon after it went wrong.
pub struct Parts;

impl Values for Parts {
    type Value = u64;

    fn count(&self) -> usize {
        let long = boot::command_line().kunit_percent == Some(100);
        if long && smp::cpus().count() >= MANY && !time::is_exact() {
            PARTS
        } else {
            1
        }
    }

    fn name(&self, index: usize) -> String {
        format!("part{index}")
    }

    fn value(&self, index: usize) -> Option<u64> {
        (index < self.count()).then_some(index as u64)
    }
}

/// Nanoseconds of one part, which takes so many milliseconds in full and in daily work. Where
/// instructions are counted each of the guest's seconds takes many of ours.
pub fn duration_ns(full_ms: u64, quick_ms: u64) -> u64 {
    let duration = kunit::rounds(full_ms, quick_ms) * 1_000_000;
    if time::is_exact() {
        duration / 8
    } else {
        duration
    }
}

/// CPUs that were taken away come back, however this ends.
pub struct AllBack;

impl Drop for AllBack {
    fn drop(&mut self) {
        for cpu in smp::cpus().without(CpuId::BOOT) {
            // Most are online already.
            let _ = hotplug::on(cpu);
        }
    }
}

/// Takes a CPU away, or brings one back.
pub fn move_one(rng: &mut Rng) {
    let others: CpuMask = smp::cpus().without(CpuId::BOOT);
    if others.is_empty() {
        return;
    }
    let index = rng.below(others.count() as u64) as usize;
    let Some(cpu) = others.iter().nth(index) else {
        return;
    };
    // A thread that holds on to the CPU may make it stay: then another time.
    let _ = if smp::online().contains(cpu) {
        hotplug::off(cpu)
    } else {
        hotplug::on(cpu)
    };
}
