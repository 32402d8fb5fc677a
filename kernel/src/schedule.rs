//! Seeded schedules: in checked builds, `schedule=SEED` on the command line makes locks,
//! calls between CPUs and the end of sections without preemption ask a generator whether to
//! go on, to let another thread run, to wait a while, or to be interrupted. So orders come up
//! that a quiet machine would hardly show.
//!
//! The numbers come from the seed and the CPU alone. On a machine that counts instructions
//! the whole run repeats with the seed; elsewhere it is a stress test.

use core::sync::atomic::{AtomicU64, Ordering};

use platform::{Context, Mark};

use crate::{
    arch::{apic, interrupts::vector, irq, percpu::PerCpuCell, preempt},
    boot, percpu, sched, smp,
};

/// The seed; 0: off.
static SEED: AtomicU64 = AtomicU64::new(0);

percpu! {
    /// The generator's state.
    static STATE: u64 = 0;
    /// Times that another thread was let run.
    pub static YIELDS: u64 = 0;
    /// Times that the CPU waited.
    pub static DELAYS: u64 = 0;
    /// Interrupts raised.
    pub static INTERRUPTS: u64 = 0;
}

/// The longest wait, in turns of a loop.
const LONGEST_DELAY: u64 = 400;

/// Begins, if the command line asks for it. After all CPUs have started.
pub fn init() {
    let Some(seed) = boot::command_line().schedule else {
        return;
    };
    if !cfg!(debug_assertions) {
        log::warn!("schedule: only checked builds have seeded schedules");
        return;
    }
    for cpu in smp::online() {
        // Relaxed: a CPU that begins with another number does no harm.
        let start = mix(seed ^ (u64::from(cpu.number()) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        STATE.on(cpu).store(start, Ordering::Relaxed);
    }
    log::info!("schedule: seed {seed}; schedule={seed} gives the same again where runs repeat");
    SEED.store(seed.max(1), Ordering::Relaxed);
}

/// Whether schedules are made.
pub fn is_on() -> bool {
    SEED.load(Ordering::Relaxed) != 0
}

/// SplitMix64's output step (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn next() -> u64 {
    // An interrupt in between takes the same number twice, which is as good as another.
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    mix(state)
}

/// A place where something may happen.
#[inline]
pub fn mark(_mark: Mark) {
    if is_on() {
        step_in();
    }
}

#[cold]
#[inline(never)]
fn step_in() {
    if preempt::context() == Context::Nmi {
        return;
    }
    let number = next();
    match number % 64 {
        0..4 if sched::may_sleep() => {
            YIELDS.add(1);
            sched::let_others_run();
        }
        4..6 => {
            DELAYS.add(1);
            for _ in 0..number / 64 % LONGEST_DELAY {
                core::hint::spin_loop();
            }
        }
        6..8 if irq::enabled() => {
            INTERRUPTS.add(1);
            // It makes the CPU look at its queue, and run what else waits for an interrupt.
            apic::send_self(vector::RESCHEDULE);
        }
        _ => {}
    }
}
