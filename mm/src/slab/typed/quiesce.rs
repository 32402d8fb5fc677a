//! Waiting for frees that may be under way.

use platform::{
    Preempt,
    sync::{AtomicU64, Ordering, fence},
};

use super::super::Machine;

/// Returns when every CPU was seen outside of sections with preemption off that began before this. May
/// sleep. How many calls to CPUs it took.
///
/// A CPU that comes online meanwhile is not waited for: it comes with a full fence, as this
/// begins with one, so what it does is after this, or this sees it.
pub(crate) fn quiesce<M: Machine>() -> u32 {
    let mut calls = 0;
    fence(Ordering::SeqCst);
    let mut left = M::online_cpus();
    loop {
        // The CPU that runs this thread runs no other.
        left = {
            let _here = Preempt::<M>::disable();
            left.without(M::current_cpu())
        };
        if left.is_empty() {
            return calls;
        }
        calls += left.count() as u32;
        let quiet = AtomicU64::new(0);
        M::call(left, &|| {
            if M::interrupted_quiescent() {
                let own = platform::CpuMask::only(M::current_cpu());
                // Relaxed: the end of a call orders what was done in it.
                quiet.fetch_or(own.bits(), Ordering::Relaxed);
            }
        });
        let quiet = quiet.load(Ordering::Relaxed);
        // One that has gone is in no section.
        left = platform::CpuMask::from_bits(left.bits() & !quiet).intersection(M::online_cpus());
        if !left.is_empty() {
            M::yield_now();
        }
    }
}
