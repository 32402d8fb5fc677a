//! What everything hot is made of. On the exact machine a figure less that of
//! `sched/empty_loop` is the number of instructions; a test holds them to it.

use core::hint::black_box;

use platform::{
    Platform, Preempt,
    lock::LocalLock,
    lock_class,
    percpu::{Counter, PerCpu},
    wait::Mutex,
};

use super::{Outcome, Run, Stop, bench};
use crate::machine::Kernel;
use crate::sync::{IrqLock, SpinLock};

bench! {
    name: "primitive/current_cpu",
    ops: 200_000,
    run: current_cpu,
}

bench! {
    name: "primitive/preempt_guard",
    ops: 200_000,
    run: preempt_guard,
}

bench! {
    name: "primitive/percpu_counter",
    ops: 200_000,
    run: percpu_counter,
}

bench! {
    name: "primitive/local_lock",
    ops: 200_000,
    run: local_lock,
}

bench! {
    name: "primitive/spin_lock",
    ops: 200_000,
    run: spin_lock,
}

bench! {
    name: "primitive/irq_spin_lock",
    ops: 200_000,
    run: irq_spin_lock,
}

bench! {
    name: "primitive/mutex",
    ops: 200_000,
    run: mutex,
}

lock_class! {
    struct Measured = ("measured", 100);
    struct MeasuredMutex = ("measured mutex", 5);
}

fn no_memory() -> Stop {
    Stop::Failed("no per-CPU memory".into())
}

fn current_cpu(run: &mut Run) -> Outcome {
    let ops = run.ops();
    run.time(|| {
        for _ in 0..ops {
            black_box(Kernel::current_cpu());
        }
    });
    Ok(())
}

fn preempt_guard(run: &mut Run) -> Outcome {
    let ops = run.ops();
    run.time(|| {
        for _ in 0..ops {
            drop(Preempt::<Kernel>::disable());
        }
    });
    Ok(())
}

fn percpu_counter(run: &mut Run) -> Outcome {
    let counter: Counter<Kernel> = Counter::try_new().ok_or_else(no_memory)?;
    let ops = run.ops();
    run.time(|| {
        for _ in 0..ops {
            counter.add(1);
        }
    });
    Ok(())
}

fn local_lock(run: &mut Run) -> Outcome {
    let lock: PerCpu<LocalLock<u64, Kernel, Measured>, Kernel> =
        PerCpu::try_new(|_| LocalLock::new(0)).ok_or_else(no_memory)?;
    let ops = run.ops();
    run.time(|| {
        for _ in 0..ops {
            if let Some(mut value) = lock.try_lock_here() {
                *value += 1;
            }
        }
    });
    Ok(())
}

fn spin_lock(run: &mut Run) -> Outcome {
    let lock: SpinLock<u64, Measured> = SpinLock::new(0);
    let ops = run.ops();
    run.time(|| {
        for _ in 0..ops {
            *lock.lock() += 1;
        }
    });
    Ok(())
}

fn irq_spin_lock(run: &mut Run) -> Outcome {
    let lock: IrqLock<u64, Measured> = IrqLock::new(0);
    let ops = run.ops();
    run.time(|| {
        for _ in 0..ops {
            *lock.lock() += 1;
        }
    });
    Ok(())
}

/// Nobody else wants it.
fn mutex(run: &mut Run) -> Outcome {
    let lock: Mutex<u64, Kernel, MeasuredMutex> = Mutex::new(0);
    let ops = run.ops();
    run.time(|| {
        for _ in 0..ops {
            *lock.lock() += 1;
        }
    });
    Ok(())
}
