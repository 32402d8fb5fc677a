//! Some threads that do a test's work together.

use super::{Failure, Outcome, Size};
use crate::{
    CpuId, Platform, Priority, Spawn,
    sync::{AtomicUsize, Cell, Ordering},
};

/// More threads than any test wants.
const MAX_THREADS: usize = 32;

/// What the threads of one test share.
struct Group<'a, P: Platform, S> {
    shared: &'a S,
    body: fn(&S, usize) -> Outcome,
    /// Threads that have not ended.
    remaining: AtomicUsize,
    waiter: P::Thread,
}

/// What one thread knows and leaves behind.
struct Slot<'a, P: Platform, S> {
    group: &'a Group<'a, P, S>,
    index: usize,
    /// Its thread's until it is counted down, then the waiter's.
    outcome: Cell<Outcome>,
}

/// Runs `body(shared, i)` in thread `i` for all `i` up to `size.threads`, 0 in the caller's,
/// each on a CPU of its own if there are so many. Returns when all have, with the first
/// failure.
pub(super) fn run<P: Platform, S: Sync>(
    size: Size,
    shared: &S,
    body: fn(&S, usize) -> Outcome,
) -> Outcome {
    let threads = size.threads.clamp(1, MAX_THREADS);
    let group = Group::<P, S> {
        shared,
        body,
        remaining: AtomicUsize::new(threads),
        waiter: P::current_thread(),
    };
    let slots: [_; MAX_THREADS] = core::array::from_fn(|index| Slot {
        group: &group,
        index,
        outcome: Cell::new(Ok(())),
    });
    let mut result = Ok(());
    for slot in &slots[1..threads] {
        let spawned = P::spawn(
            Spawn {
                name: "conformance",
                cpu: Some(cpu_for::<P>(slot.index)),
                priority: Priority::Normal,
            },
            entry::<P, S>,
            core::ptr::from_ref(slot).expose_provenance(),
        );
        if spawned.is_err() {
            result = Err(Failure {
                what: "thread is not started",
                found: slot.index as u64,
                wanted: threads as u64,
            });
            // Relaxed: nobody waits but this thread.
            group.remaining.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let own = body(shared, 0);
    // Relaxed: as above.
    group.remaining.fetch_sub(1, Ordering::Relaxed);
    // Acquire: what the threads did is seen.
    while group.remaining.load(Ordering::Acquire) > 0 {
        P::park();
    }
    slots[1..threads]
        .iter()
        .fold(result.and(own), |result, slot| {
            // SAFETY: its thread has counted down, if there was one.
            result.and(unsafe { *slot.outcome.shared().get() })
        })
}

/// The CPU of thread `index`: its neighbours have others.
fn cpu_for<P: Platform>(index: usize) -> CpuId {
    let online = P::online_cpus();
    let mut cpus = online.iter().cycle();
    cpus.find(|cpu| *cpu == P::current_cpu());
    cpus.nth(index - 1).unwrap_or(CpuId::BOOT)
}

fn entry<P: Platform, S: Sync>(slot: usize) {
    // SAFETY: `run` gave the address of one of its slots, each to one thread, and does not
    // return before that thread has counted down.
    let slot = unsafe { &*core::ptr::with_exposed_provenance::<Slot<'_, P, S>>(slot) };
    let outcome = (slot.group.body)(slot.group.shared, slot.index);
    // SAFETY: the waiter looks after the count.
    unsafe { *slot.outcome.exclusive().get_mut() = outcome };
    let waiter = slot.group.waiter.clone();
    // Release: the waiter sees what this thread did. The last access to what is on its stack.
    slot.group.remaining.fetch_sub(1, Ordering::Release);
    P::unpark(&waiter);
}
