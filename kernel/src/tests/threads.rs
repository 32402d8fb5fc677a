//! Threads: starting, ending, sleeping, waking, taking turns.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use platform::{CpuId, CpuMask, Priority, SpawnError};

use crate::arch::preempt;
use crate::kunit::{
    Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kassert_ok, kfail, kskip, kunit_suite,
};
use crate::sched::{self, Builder, JoinHandle, table};
use crate::{smp, time};

kunit_suite! {
    name: "threads",
    cases: [
        value_comes_back => { over: OnlineCpus },
        runs_where_it_is_bound => { over: OnlineCpus },
        moves_where_it_is_told => { over: OnlineCpus },
        ten_thousand,
        as_many_as_there_can_be,
        offline_cpu_is_refused,
        token_is_kept,
        sleep_is_never_short,
        busy_threads_take_turns,
        higher_priority_goes_first => { over: OnlineCpus },
        woken_thread_preempts,
        idle_cpus_take_work,
        no_wake_up_is_lost,
        seeded_schedule_steps_in,
        idle_is_seen_from_afar => { over: OnlineCpus },
    ],
}

fn value_comes_back(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let thread = Builder::new()
        .on(cpu)
        .spawn(format_args!("value"), move || (cpu, 42));
    kassert_eq!(kassert_ok!(thread).join(), (cpu, 42));
    Ok(())
}

fn runs_where_it_is_bound(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let thread = Builder::new()
        .on(cpu)
        .spawn(format_args!("bound"), move || {
            (0..200).all(|_| {
                sched::yield_now();
                smp::this_cpu() == cpu
            })
        });
    kassert!(kassert_ok!(thread).join());
    Ok(())
}

fn moves_where_it_is_told(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let thread = Builder::new().spawn(format_args!("mover"), move || {
        for other in smp::online() {
            sched::move_to(CpuMask::only(other));
            if smp::this_cpu() != other {
                return false;
            }
            sched::move_to(CpuMask::only(cpu));
            if smp::this_cpu() != cpu {
                return false;
            }
        }
        true
    });
    kassert!(kassert_ok!(thread).join());
    Ok(())
}

/// Created and joined, a few dozen alive at a time; every stack comes back.
fn ten_thousand(_: &mut Ctx) -> Outcome {
    const THREADS: u64 = 10_000;
    const AT_ONCE: u64 = 50;
    let (stacks, _) = table::stack_usage();
    let alive = table::count();
    let ran = Arc::new(AtomicU64::new(0));
    for wave in 0..THREADS / AT_ONCE {
        let mut threads: Vec<JoinHandle<u64>> = Vec::new();
        for number in 0..AT_ONCE {
            let ran = Arc::clone(&ran);
            let number = wave * AT_ONCE + number;
            let thread = Builder::new().spawn(format_args!("one of many"), move || {
                // Relaxed: joined before it is read.
                ran.fetch_add(1, Ordering::Relaxed);
                number
            });
            threads.push(kassert_ok!(thread));
        }
        for (place, thread) in threads.into_iter().enumerate() {
            kassert_eq!(thread.join(), wave * AT_ONCE + place as u64);
        }
    }
    kassert_eq!(ran.load(Ordering::Relaxed), THREADS);
    kassert_eq!(table::stack_usage().0, stacks);
    kassert_eq!(table::count(), alive);
    Ok(())
}

/// Threads are refused when there is no stack or memory left, and the ones that exist are
/// whole.
fn as_many_as_there_can_be(_: &mut Ctx) -> Outcome {
    let (stacks, _) = table::stack_usage();
    let go_on = Arc::new(AtomicBool::new(false));
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let refused = loop {
        let go_on = Arc::clone(&go_on);
        let thread = Builder::new().spawn(format_args!("crowd"), move || {
            while !go_on.load(Ordering::Acquire) {
                sched::park();
            }
        });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => break error,
        }
        kassert!(
            threads.len() <= table::MAX_THREADS,
            "there is no end to threads"
        );
    };
    let count = threads.len();
    go_on.store(true, Ordering::Release);
    for thread in threads {
        sched::unpark(thread.thread());
        thread.join();
    }
    kassert!(
        matches!(
            refused,
            SpawnError::TooManyThreads | SpawnError::OutOfMemory
        ),
        "{refused:?}"
    );
    kassert!(count > 100, "only {count} threads");
    kassert_eq!(table::stack_usage().0, stacks);
    Ok(())
}

fn offline_cpu_is_refused(_: &mut Ctx) -> Outcome {
    let Some(absent) = CpuMask::ALL.difference(smp::online()).first() else {
        kskip!("every CPU there can be is online");
    };
    let (stacks, _) = table::stack_usage();
    match Builder::new()
        .on(absent)
        .spawn(format_args!("nowhere"), || ())
    {
        Err(error) => kassert_eq!(error, SpawnError::Offline(absent)),
        Ok(thread) => {
            thread.detach();
            kfail!("a thread on a CPU that is not there");
        }
    }
    kassert_eq!(table::stack_usage().0, stacks);
    Ok(())
}

/// A wake-up that comes before the sleep is not lost; two are one.
fn token_is_kept(_: &mut Ctx) -> Outcome {
    let own = sched::current_ref();
    sched::unpark(&own);
    sched::unpark(&own);
    sched::park();
    let before = time::now_ns();
    sched::park_until(before + 2_000_000);
    kassert!(
        time::now_ns() >= before + 2_000_000,
        "the second one was kept, too"
    );
    Ok(())
}

fn sleep_is_never_short(ctx: &mut Ctx) -> Outcome {
    for _ in 0..50 {
        let ns = ctx.rng().next_u64() % 3_000_000;
        let before = time::now_ns();
        sched::sleep_ns(ns);
        let passed = time::now_ns() - before;
        kassert!(passed >= ns, "{passed} ns instead of {ns}");
    }
    Ok(())
}

/// Threads that never sleep share a CPU by the tick.
fn busy_threads_take_turns(_: &mut Ctx) -> Outcome {
    let cpu = smp::this_cpu();
    let finished = Arc::new(AtomicU64::new(0));
    let started = Arc::new(AtomicU64::new(0));
    let mut threads: Vec<JoinHandle<bool>> = Vec::new();
    for _ in 0..3 {
        let finished = Arc::clone(&finished);
        let started = Arc::clone(&started);
        threads.push(kassert_ok!(Builder::new().on(cpu).spawn(
            format_args!("busy"),
            move || {
                started.fetch_add(1, Ordering::Relaxed);
                // None ends before all have begun, which takes preemption.
                while started.load(Ordering::Relaxed) < 3 {
                    core::hint::spin_loop();
                }
                finished.fetch_add(1, Ordering::Relaxed) < 3
            }
        )));
    }
    for thread in threads {
        kassert!(thread.join());
    }
    Ok(())
}

/// A thread of higher priority that becomes ready runs at once, although a busy one of lower
/// priority has the CPU.
fn higher_priority_goes_first(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let running = Arc::new(AtomicBool::new(false));
    let hog = {
        let (stop, running) = (Arc::clone(&stop), Arc::clone(&running));
        kassert_ok!(Builder::new().on(cpu).spawn(format_args!("hog"), move || {
            running.store(true, Ordering::Release);
            while !stop.load(Ordering::Acquire) {
                core::hint::spin_loop();
            }
        }))
    };
    let urgent = kassert_ok!(Builder::new().on(cpu).priority(Priority::Urgent).spawn(
        format_args!("urgent"),
        move || {
            // The hog does not stop by itself: only preemption lets this run.
            stop.store(true, Ordering::Release);
        }
    ));
    urgent.join();
    hog.join();
    kassert!(running.load(Ordering::Acquire));
    Ok(())
}

/// A wake-up of a more important thread switches to it before the waker goes on.
fn woken_thread_preempts(_: &mut Ctx) -> Outcome {
    let cpu = smp::this_cpu();
    let woken = Arc::new(AtomicBool::new(false));
    let asleep = Arc::new(AtomicBool::new(false));
    let sleeper = {
        let (woken, asleep) = (Arc::clone(&woken), Arc::clone(&asleep));
        kassert_ok!(Builder::new().on(cpu).priority(Priority::Urgent).spawn(
            format_args!("sleeper"),
            move || {
                asleep.store(true, Ordering::Relaxed);
                sched::park();
                woken.store(true, Ordering::Relaxed);
            }
        ))
    };
    // It went first when it was made.
    kassert!(asleep.load(Ordering::Relaxed));
    preempt::disable();
    sched::unpark(sleeper.thread());
    let early = woken.load(Ordering::Relaxed);
    preempt::enable();
    let late = woken.load(Ordering::Relaxed);
    sleeper.join();
    kassert!(!early, "switched with preemption off");
    kassert!(late, "not switched when preemption came on");
    Ok(())
}

/// Floating threads spread over CPUs that have nothing to do.
fn idle_cpus_take_work(_: &mut Ctx) -> Outcome {
    let cpus = smp::online().count() as u64;
    if cpus == 1 {
        kskip!("there is only one CPU");
    }
    // Each thread holds its CPU until one runs on every other, too.
    let here = Arc::new(AtomicU64::new(0));
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for _ in 1..cpus {
        let here = Arc::clone(&here);
        threads.push(kassert_ok!(Builder::new().spawn(
            format_args!("spread"),
            move || {
                preempt::disable();
                here.fetch_add(1, Ordering::AcqRel);
                while here.load(Ordering::Acquire) < cpus - 1 {
                    core::hint::spin_loop();
                }
                preempt::enable();
            }
        )));
    }
    for thread in threads {
        thread.join();
    }
    Ok(())
}

/// Pairs of threads hand a turn to and fro by park and unpark alone, a million times over all
/// CPUs (a few in quick runs): a wake-up that is lost is a hang.
fn no_wake_up_is_lost(_: &mut Ctx) -> Outcome {
    let rounds = crate::kunit::rounds(1_000_000, 20_000);
    let cpus: Vec<CpuId> = smp::online().iter().collect();
    let pairs = cpus.len().max(2) / 2;
    let each = rounds / pairs as u64;
    let mut threads: Vec<JoinHandle<u64>> = Vec::new();
    for pair in 0..pairs {
        let turn = Arc::new(AtomicU64::new(0));
        let handles: Arc<[spin::Once<sched::ThreadRef>; 2]> =
            Arc::new([spin::Once::new(), spin::Once::new()]);
        for side in 0..2_u64 {
            let (turn, handles) = (Arc::clone(&turn), Arc::clone(&handles));
            let cpu = cpus[(2 * pair + side as usize) % cpus.len()];
            threads.push(kassert_ok!(Builder::new().on(cpu).spawn(
                format_args!("side {side}"),
                move || {
                    handles[side as usize].call_once(sched::current_ref);
                    fence(Ordering::SeqCst);
                    let mut mine = 0;
                    for round in 0..each {
                        if round % 2 != side {
                            continue;
                        }
                        while turn.load(Ordering::Acquire) != round {
                            sched::park();
                        }
                        mine += 1;
                        turn.store(round + 1, Ordering::Release);
                        // Either we find its handle, or it finds the turn.
                        fence(Ordering::SeqCst);
                        if let Some(other) = handles[1 - side as usize].get() {
                            sched::unpark(other);
                        }
                    }
                    mine
                }
            )));
        }
    }
    let done: u64 = threads.into_iter().map(JoinHandle::join).sum();
    kassert_eq!(done, each * pairs as u64);
    Ok(())
}

/// A seeded schedule does step in.
fn seeded_schedule_steps_in(_: &mut Ctx) -> Outcome {
    use crate::arch::percpu::PerCpuCell;
    use crate::schedule;
    if !schedule::is_on() {
        kskip!("no schedule= on the command line");
    }
    let total = |cell: fn(CpuId) -> &'static AtomicU64| {
        let each = smp::online().iter().map(cell);
        each.map(|count| count.load(Ordering::Relaxed)).sum::<u64>()
    };
    kassert!(total(|cpu| schedule::YIELDS.on(cpu)) > 0);
    kassert!(total(|cpu| schedule::DELAYS.on(cpu)) > 0);
    kassert!(total(|cpu| schedule::INTERRUPTS.on(cpu)) > 0);
    Ok(())
}

/// An idle CPU's word says so from afar; it does not while the CPU takes an interrupt, and
/// shows afterwards that it has been idle.
fn idle_is_seen_from_afar(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let eqs = sched::eqs(cpu);
    if cpu == smp::this_cpu() {
        kassert!(eqs.is_watching());
        kassert!(!eqs.snapshot().in_eqs());
        return Ok(());
    }
    // It has nothing to do, and so comes to it; if it never does, the runner tells.
    while !eqs.snapshot().in_eqs() {
        sched::sleep_ns(200_000);
    }
    let inside = AtomicU64::new(0);
    smp::call_on(cpu, &|| {
        let snapshot = eqs.snapshot();
        let good = eqs.is_watching() && !snapshot.in_eqs() && !eqs.passed_since(snapshot);
        inside.store(u64::from(good), Ordering::Relaxed);
    });
    kassert_eq!(inside.load(Ordering::Relaxed), 1);
    // A busy CPU has not passed, until it was idle again.
    let (stop, busy) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let thread = {
        let (stop, busy) = (Arc::clone(&stop), Arc::clone(&busy));
        kassert_ok!(Builder::new().on(cpu).spawn(format_args!("busy"), move || {
            busy.store(true, Ordering::Release);
            while !stop.load(Ordering::Acquire) {
                core::hint::spin_loop();
            }
        }))
    };
    while !busy.load(Ordering::Acquire) {
        sched::sleep_ns(100_000);
    }
    let snapshot = eqs.snapshot();
    kassert!(!snapshot.in_eqs());
    sched::sleep_ns(10_000_000);
    kassert!(
        !eqs.passed_since(snapshot),
        "a CPU that was busy all the time passed"
    );
    stop.store(true, Ordering::Release);
    thread.join();
    while !eqs.passed_since(snapshot) {
        sched::sleep_ns(200_000);
    }
    Ok(())
}
