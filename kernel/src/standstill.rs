//! All CPUs but one stand still, where an interrupt comes upon them, and go on unharmed: for
//! who looks at what the others change.
//!
//! The leader numbers its *round*: odd while the others are to stand, even when that is over. It
//! raises an interrupt on each.
//!
//! | a CPU | left by | to |
//! |---|---|---|
//! | runs | the interrupt, in an odd round, upon a thread with preemption on or upon idleness | stands |
//! | | the end of a section without preemption that the interrupt came upon | stands |
//! | | the interrupt, upon anything else | runs, and is asked again soon |
//! | stands, with interrupts off, and has noted the round | the end of that round | runs |
//!
//! The leader does its work when each has noted its round. A CPU that has noted another one is about
//! to leave: it does not count. Sections with preemption off are waited for in this way, however many CPUs
//! are busy; but one that waits for a CPU that stands does not end, so that after a while the leader
//! gives up the round, and begins another one.
//!
//! So a CPU that stands holds no spinning lock, nor a local one, and is in no section of RCU with
//! preemption off. It may hold locks that threads sleep for. NMIs are still taken.

use core::sync::atomic::{AtomicU64, Ordering};

use platform::{CpuMask, MAX_CPUS, lock_class, wait::Mutex, wait::ReadGuard};

use crate::{
    arch::{irq, preempt},
    machine::Kernel,
    sched::{self, Pinned},
    smp,
    sync::Hotplug,
    time,
};

/// How long others are waited for in all. Under emulation the host may keep a CPU that long.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How long a round may take to gather them.
const ROUND_NS: u64 = 200_000_000;
/// How long the others run between two rounds.
const BETWEEN_NS: u64 = 1_000_000;
/// After how long a CPU is asked again at first; each time twice as long, up to the last.
const AGAIN_NS: (u64, u64) = (10_000, 1_000_000);

lock_class! {
    /// The leader's part: there is one at a time. Sleeps.
    struct Leader = ("standstill", 9);
}

static LEADER: Mutex<(), Kernel, Leader> = Mutex::new(());
/// The number of the round: odd while CPUs are to stand. Changed by the leader.
static ROUND: AtomicU64 = AtomicU64::new(0);
/// The last round that each CPU stood in. Changed by that CPU.
static STOOD: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Runs `work` on this CPU with interrupts off, while all others stand still. `None`: one did
/// not come within ten seconds, and nothing was done. `_online`: none comes or goes meanwhile.
/// Task context with interrupts on, without spinning locks; `work` may neither sleep nor wait for
/// another CPU.
pub fn with<R>(
    _online: &ReadGuard<'_, (), Kernel, Hotplug>,
    work: impl FnOnce() -> R,
) -> Option<R> {
    let _leader = LEADER.lock();
    let end = time::now_ns() + PATIENCE_NS;
    loop {
        let pinned = Pinned::disable();
        // Relaxed: only the leader changes it.
        let round = ROUND.load(Ordering::Relaxed) + 1;
        // Release: the interrupt that is raised behind it finds it, or the next one does.
        ROUND.store(round, Ordering::Release);
        // Release: who goes on sees what was done.
        let over = || ROUND.store(round + 1, Ordering::Release);
        if gather(round) {
            let irqs_off = irq::disable();
            let result = work();
            drop(irqs_off);
            over();
            return Some(result);
        }
        over();
        drop(pinned);
        if time::now_ns() > end {
            return None;
        }
        sched::sleep_until(time::now_ns() + BETWEEN_NS);
    }
}

/// Asks all others until they stand; `false`: not all did in time.
fn gather(round: u64) -> bool {
    let others = smp::online().without(smp::this_cpu());
    let end = time::now_ns() + ROUND_NS;
    let mut pause = AGAIN_NS.0;
    loop {
        // Acquire pairs with the Release in `interrupt`: what the CPU did before is seen.
        let runs = |cpu: &platform::CpuId| STOOD[cpu.index()].load(Ordering::Acquire) != round;
        let left = others.iter().filter(runs).collect::<CpuMask>();
        if left.is_empty() {
            return true;
        }
        if time::now_ns() > end {
            return false;
        }
        smp::ask_to_stand(left);
        let again = time::now_ns() + pause;
        while time::now_ns() < again && left.iter().any(|cpu| runs(&cpu)) {
            core::hint::spin_loop();
        }
        pause = (2 * pause).min(AGAIN_NS.1);
    }
}

/// The interrupt: this CPU is asked to stand.
pub fn interrupt() {
    if preempt::interrupted_preemptible() {
        stand();
    } else if is_on() {
        // What comes upon the end of the section leads to `at_section_end`.
        preempt::want_switch();
    }
}

/// Preemption comes on, and something was wanted of this CPU: it may have been this. Thread
/// context, interrupts on.
pub fn at_section_end() {
    if is_on() {
        let _irqs_off = irq::disable();
        stand();
    }
}

/// Whether CPUs are to stand.
fn is_on() -> bool {
    // Relaxed: a look; `stand` looks again.
    !ROUND.load(Ordering::Relaxed).is_multiple_of(2)
}

/// Stands until the round is over, if one is on. Interrupts off, upon code with preemption
/// on.
fn stand() {
    // Acquire pairs with the end of the round before: what was done then is seen.
    let round = ROUND.load(Ordering::Acquire);
    if round.is_multiple_of(2) {
        return;
    }
    // Release: the leader sees what this CPU did before.
    STOOD[smp::this_cpu().index()].store(round, Ordering::Release);
    // Acquire: this CPU sees what was done meanwhile.
    while ROUND.load(Ordering::Acquire) == round {
        core::hint::spin_loop();
    }
}
