//! Timers: never early, once each, and gone when cancelled.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use platform::{Context, CpuId, lock_class};

use crate::arch::{irq, preempt};
use crate::kunit::{
    self, Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kassert_ok, knote, kunit_suite,
};
use crate::sched::{self, Builder};
use crate::sync::IrqLock;
use crate::timer::{TICK_NS, Timer};
use crate::{smp, time};

kunit_suite! {
    name: "timers",
    cases: [
        many_at_once => { over: OnlineCpus },
        fires_on_its_cpu => { over: OnlineCpus },
        latest_deadline_counts,
        arms_itself_again,
        cancelled_is_not_called,
        cancel_waits_for_the_function,
        dropped_in_its_own_function,
        armed_by_every_cpu,
        far_ahead,
        no_tick_in_idle => { over: OnlineCpus },
    ],
}

lock_class! {
    /// Where a timer lies that its own function takes away.
    struct TimerSlot = ("timer slot", 40);
}

/// Runs `f` in a thread of `cpu`.
fn on<T: Send + 'static>(
    cpu: CpuId,
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<T, platform::SpawnError> {
    Ok(Builder::new()
        .on(cpu)
        .spawn(format_args!("on cpu{cpu}"), f)?
        .join())
}

/// Random deadlines; none is early, and where time is exact none is a tick late.
fn many_at_once(ctx: &mut Ctx, cpu: CpuId) -> Outcome {
    const TIMERS: usize = 64;
    let delays: Vec<u64> = (0..TIMERS)
        .map(|_| ctx.rng().next_u64() % 20_000_000)
        .collect();
    let (early, latest, fired) = kassert_ok!(on(cpu, move || {
        let fired = Arc::new(AtomicU64::new(0));
        let early = Arc::new(AtomicU64::new(0));
        let latest = Arc::new(AtomicU64::new(0));
        let start = time::now_ns();
        let timers: Vec<Timer> = delays
            .iter()
            .filter_map(|delay| {
                let (fired, early, latest) =
                    (Arc::clone(&fired), Arc::clone(&early), Arc::clone(&latest));
                let due = start + delay;
                let timer = Timer::new(move || {
                    let now = time::now_ns();
                    early.fetch_add(u64::from(now < due), Ordering::Relaxed);
                    latest.fetch_max(now.saturating_sub(due), Ordering::Relaxed);
                    fired.fetch_add(1, Ordering::Release);
                })?;
                timer.arm(due);
                Some(timer)
            })
            .collect();
        while fired.load(Ordering::Acquire) < timers.len() as u64 {
            sched::sleep_ns(1_000_000);
        }
        sched::sleep_ns(2_000_000);
        (
            early.load(Ordering::Relaxed),
            latest.load(Ordering::Relaxed),
            fired.load(Ordering::Acquire),
        )
    }));
    kassert_eq!(fired, TIMERS as u64);
    kassert_eq!(early, 0);
    knote!("at most {latest} ns late");
    if time::is_exact() && !crate::schedule::is_on() {
        kassert!(latest <= TICK_NS, "{latest} ns late");
    }
    Ok(())
}

fn fires_on_its_cpu(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let seen = Arc::new(AtomicU64::new(u64::MAX));
    let timer = {
        let seen = Arc::clone(&seen);
        kassert_ok!(Timer::new(move || {
            let right = preempt::context() == Context::SoftIrq && irq::enabled();
            let cpu = u64::from(smp::this_cpu().number());
            seen.store(if right { cpu } else { 1_000 + cpu }, Ordering::Release);
        }))
    };
    let timer = Arc::new(timer);
    {
        let timer = Arc::clone(&timer);
        kassert_ok!(on(cpu, move || timer.arm(time::now_ns() + 100_000)));
    }
    while seen.load(Ordering::Acquire) == u64::MAX {
        sched::sleep_ns(100_000);
    }
    kassert_eq!(seen.load(Ordering::Acquire), u64::from(cpu.number()));
    Ok(())
}

/// A timer that counts its calls.
fn counting() -> (Option<Timer>, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    let timer = Timer::new(move || {
        count.fetch_add(1, Ordering::Release);
    });
    (timer, calls)
}

fn latest_deadline_counts(_: &mut Ctx) -> Outcome {
    let (timer, calls) = counting();
    let timer = kassert_ok!(timer);
    let now = time::now_ns();
    kassert!(!timer.arm(now + 3_600_000_000_000));
    kassert!(timer.is_armed());
    kassert!(timer.arm(now + 1_000_000));
    while calls.load(Ordering::Acquire) == 0 {
        sched::sleep_ns(200_000);
    }
    kassert!(time::now_ns() >= now + 1_000_000);
    kassert!(!timer.is_armed());
    // And a later one puts it off.
    let now = time::now_ns();
    timer.arm(now + 1_000_000_000);
    kassert!(timer.arm(now + 3_600_000_000_000));
    kassert!(timer.cancel());
    kassert_eq!(calls.load(Ordering::Acquire), 1);
    Ok(())
}

fn arms_itself_again(_: &mut Ctx) -> Outcome {
    static SLOT: spin::Once<Timer> = spin::Once::new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    CALLS.store(0, Ordering::Relaxed);
    let timer = kassert_ok!(SLOT.try_call_once(|| {
        Timer::new(|| {
            if CALLS.fetch_add(1, Ordering::Release) + 1 < 10
                && let Some(own) = SLOT.get()
            {
                own.arm(time::now_ns() + 50_000);
            }
        })
        .ok_or(())
    }));
    timer.arm(time::now_ns() + 50_000);
    while CALLS.load(Ordering::Acquire) < 10 {
        sched::sleep_ns(100_000);
    }
    timer.cancel_sync();
    kassert_eq!(CALLS.load(Ordering::Acquire), 10);
    Ok(())
}

/// Cancelled at about the time it fires: it was called exactly if cancelling came too late.
///
/// How late the interrupt comes depends on the machine: while one of the two has not happened,
/// times are drawn from a wider range.
fn cancelled_is_not_called(ctx: &mut Ctx) -> Outcome {
    const LEAST_NS: u64 = 20_000;
    const MOST_NS: u64 = 10_000_000;
    /// Rounds before the range is wider.
    const PATIENCE: u64 = 50;
    let (timer, calls) = counting();
    let timer = kassert_ok!(timer);
    let rounds = kunit::rounds(20_000, 500);
    let (mut prevented, mut wanted) = (0, 0);
    let (mut range, mut round) = (LEAST_NS, 0);
    while round < rounds || prevented == 0 || wanted == 0 {
        round += 1;
        timer.arm(time::now_ns() + ctx.rng().next_u64() % range);
        time::spin_ns(ctx.rng().next_u64() % range);
        if timer.cancel_sync() {
            prevented += 1;
        } else {
            wanted += 1;
        }
        kassert_eq!(calls.load(Ordering::Acquire), wanted);
        if prevented > 0 && wanted > 0 {
            range = LEAST_NS;
        } else if round.is_multiple_of(PATIENCE) {
            if range == MOST_NS {
                break;
            }
            range = MOST_NS.min(range * 2);
        }
    }
    knote!("{prevented} prevented, {wanted} called");
    kassert!(prevented > 0 && wanted > 0);
    Ok(())
}

fn cancel_waits_for_the_function(_: &mut Ctx) -> Outcome {
    let Some(other) = smp::online().without(smp::this_cpu()).first() else {
        crate::kunit::kskip!("a function runs to its end before a thread of its CPU goes on");
    };
    let inside = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let timer = {
        let (inside, over) = (Arc::clone(&inside), Arc::clone(&over));
        kassert_ok!(Timer::new(move || {
            inside.store(true, Ordering::Release);
            time::spin_ns(3_000_000);
            over.store(true, Ordering::Release);
        }))
    };
    let timer = Arc::new(timer);
    {
        let timer = Arc::clone(&timer);
        kassert_ok!(on(other, move || timer.arm(time::now_ns())));
    }
    while !inside.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    kassert!(!timer.cancel_sync());
    kassert!(over.load(Ordering::Acquire));
    Ok(())
}

/// The last handle goes while the function runs; what it uses lives to its end.
fn dropped_in_its_own_function(_: &mut Ctx) -> Outcome {
    let slot: Arc<IrqLock<Option<Timer>, TimerSlot>> = Arc::new(IrqLock::new(None));
    let value = Arc::new(AtomicU64::new(0));
    let timer = {
        let (slot, value) = (Arc::clone(&slot), Arc::clone(&value));
        kassert_ok!(Timer::new(move || {
            let own = slot.lock().take();
            drop(own);
            value.fetch_add(1, Ordering::Release);
        }))
    };
    // Armed where it lies: it may fire at once.
    slot.lock().insert(timer).arm(time::now_ns() + 200_000);
    while Arc::strong_count(&value) > 1 {
        sched::sleep_ns(200_000);
    }
    kassert!(value.load(Ordering::Acquire) <= 1);
    Ok(())
}

/// One timer, armed and cancelled by all CPUs at once: as many calls as were armed and
/// neither replaced nor cancelled, and none afterwards.
fn armed_by_every_cpu(_: &mut Ctx) -> Outcome {
    let (timer, calls) = counting();
    let timer = Arc::new(kassert_ok!(timer));
    let rounds = kunit::rounds(20_000, 300);
    let mut threads = Vec::new();
    for cpu in smp::online() {
        let timer = Arc::clone(&timer);
        threads.push(kassert_ok!(Builder::new().on(cpu).spawn(
            format_args!("armer"),
            move || {
                let mut pending = 0_i64;
                for round in 0..rounds {
                    let replaced = timer.arm(time::now_ns() + round % 5_000);
                    pending += i64::from(!replaced);
                    if round % 3 == 0 {
                        pending -= i64::from(timer.cancel());
                    }
                }
                pending
            }
        )));
    }
    let pending: i64 = threads.into_iter().map(|thread| thread.join()).sum();
    while timer.is_armed() {
        sched::sleep_ns(100_000);
    }
    timer.cancel_sync();
    kassert_eq!(calls.load(Ordering::Acquire) as i64, pending);
    Ok(())
}

/// Longer than the hardware can count.
fn far_ahead(_: &mut Ctx) -> Outcome {
    let (timer, calls) = counting();
    let timer = kassert_ok!(timer);
    let due = time::now_ns() + 1_200_000_000;
    timer.arm(due);
    while calls.load(Ordering::Acquire) == 0 {
        sched::sleep_ns(10_000_000);
    }
    kassert!(time::now_ns() >= due);
    Ok(())
}

/// A CPU with nothing to run takes no timer interrupts.
fn no_tick_in_idle(_: &mut Ctx, cpu: CpuId) -> Outcome {
    if cpu == smp::this_cpu() {
        crate::kunit::kskip!("this CPU runs the test");
    }
    // What ran there before has gone to sleep, and the watchdog's alarm is not due.
    sched::sleep_ns(3 * TICK_NS);
    let before = smp::ipi_counts(cpu).timer;
    sched::sleep_ns(20 * TICK_NS);
    let ticks = smp::ipi_counts(cpu).timer - before;
    kassert!(ticks <= 1, "{ticks} timer interrupts in 20 ticks");
    Ok(())
}
