//! Threads: changing them, waking them, putting them to sleep.

use alloc::{format, sync::Arc};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel_base::bench::Value;
use platform::CpuId;

use super::{Outcome, Run, Start, Stop, bench};
use crate::sched::{self, Builder, JoinHandle};
use crate::timer::Timer;
use crate::{smp, time};

bench! {
    name: "sched/context_switch",
    ops: 50_000,
    run: context_switch,
}

bench! {
    name: "sched/park_unpark",
    ops: 50_000,
    run: park_unpark,
}

bench! {
    name: "sched/wake_to_run",
    ops: 5_000,
    cpus: 2,
    run: wake_to_run,
}

bench! {
    name: "sched/spawn_join",
    ops: 2_000,
    run: spawn_join,
}

bench! {
    name: "sched/timer_arm_cancel",
    ops: 50_000,
    run: timer_arm_cancel,
}

bench! {
    name: "sched/sleep",
    ops: 200,
    run: sleep,
}

fn spawn<T: Send + 'static>(
    cpu: CpuId,
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Stop> {
    Builder::new()
        .on(cpu)
        .spawn(format_args!("bench"), f)
        .map_err(|error| Stop::Failed(format!("no thread: {error}")))
}

/// From one thread to another of the same CPU and priority, by yielding.
fn context_switch(run: &mut Run) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let other = {
        let stop = Arc::clone(&stop);
        spawn(smp::this_cpu(), move || {
            while !stop.load(Ordering::Relaxed) {
                sched::yield_now();
            }
        })?
    };
    // It has begun, and waits for its turn.
    sched::yield_now();
    let switches = run.ops();
    run.time(|| {
        for _ in 0..switches / 2 {
            // To the other one, which yields back.
            sched::yield_now();
        }
    });
    stop.store(true, Ordering::Relaxed);
    other.join();
    Ok(())
}

/// A thread wakes another of the same CPU and sleeps until that does the same to it: one
/// wake-up, one sleep and one switch.
fn park_unpark(run: &mut Run) -> Outcome {
    let main = sched::current_ref();
    let turn = Arc::new(AtomicU64::new(0));
    let rounds = run.ops() / 2;
    let other = {
        let turn = Arc::clone(&turn);
        spawn(smp::this_cpu(), move || {
            for round in 0..rounds {
                while turn.load(Ordering::Relaxed) != 2 * round + 1 {
                    sched::park();
                }
                turn.store(2 * round + 2, Ordering::Relaxed);
                sched::unpark(&main);
            }
        })?
    };
    sched::yield_now();
    run.time(|| {
        for round in 0..rounds {
            turn.store(2 * round + 1, Ordering::Relaxed);
            sched::unpark(other.thread());
            while turn.load(Ordering::Relaxed) != 2 * round + 2 {
                sched::park();
            }
        }
    });
    other.join();
    Ok(())
}

/// From waking a thread that sleeps on another, idle CPU until it runs there.
fn wake_to_run(run: &mut Run) -> Outcome {
    let Some(cpu) = smp::online().without(smp::this_cpu()).first() else {
        return Err(Stop::Skipped("there is no other CPU".into()));
    };
    let ops = run.ops();
    let asked = Arc::new(AtomicU64::new(0));
    let ran = Arc::new(AtomicU64::new(0));
    let other = {
        let (asked, ran) = (Arc::clone(&asked), Arc::clone(&ran));
        spawn(cpu, move || {
            for op in 1..=ops {
                while asked.load(Ordering::Acquire) < op {
                    sched::park();
                }
                ran.store(op, Ordering::Release);
            }
        })?
    };
    for op in 1..=ops {
        // Asleep again, and its CPU too, as far as that can be seen from here.
        while !other.thread().is_asleep() || !sched::is_cpu_idle(cpu) {
            core::hint::spin_loop();
        }
        let start = Start::now();
        asked.store(op, Ordering::Release);
        sched::unpark(other.thread());
        while ran.load(Ordering::Acquire) < op {
            core::hint::spin_loop();
        }
        run.add(start.took());
    }
    other.join();
    Ok(())
}

/// A thread that does nothing, started and joined.
fn spawn_join(run: &mut Run) -> Outcome {
    let ops = run.ops();
    let cpu = smp::this_cpu();
    run.time(|| (0..ops).try_for_each(|_| spawn(cpu, || ()).map(JoinHandle::join)))
}

/// A timer set and cancelled before it fires, behind others that wait.
fn timer_arm_cancel(run: &mut Run) -> Outcome {
    const LATER_NS: u64 = 3_600_000_000_000;
    let timer = Timer::new(|| ()).ok_or_else(|| Stop::Failed("no memory for a timer".into()))?;
    let ops = run.ops();
    let later = time::now_ns() + LATER_NS;
    run.time(|| {
        for _ in 0..ops {
            timer.arm(later);
            timer.cancel();
        }
    });
    Ok(())
}

/// Sleeping for 100 us: by how much it was longer, in the mean. (`ns_per_op` is virtual
/// time, the sleep included.)
fn sleep(run: &mut Run) -> Outcome {
    const NS: u64 = 100_000;
    let ops = run.ops();
    let mut late = 0;
    run.time(|| {
        for _ in 0..ops {
            let due = time::now_ns() + NS;
            sched::sleep_until(due);
            late += time::now_ns() - due;
        }
    });
    run.key("late_ns", Value::Whole(late / ops))
}
