//! Many times offline and back.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel_base::rng::Rng;
use mm::{Gfp, Pages, Use};
use platform::{CpuId, CpuMask, Priority, work};

use super::{AllBack, on, others, wait_until};
use crate::hotplug::{self, Error};
use crate::kunit::{self, Ctx, Outcome, kassert_eq, kassert_ok, knote};
use crate::machine::Kernel;
use crate::memory::{mm, slab::slabs};
use crate::sched::{self, Builder, JoinHandle, table};
use crate::timer::Timer;
use crate::{heap, smp, time};

/// After any number of times the same memory is in use, and as many threads are alive.
pub fn cycles_leave_nothing(_: &mut Ctx) -> Outcome {
    let _back = AllBack;
    let rounds = kunit::rounds(100, 10);
    // Frames in use, bytes of the boot heap in use, threads. Slabs come and go by themselves.
    // (So do the pages of a quarantine, where one is on: it is emptied first.)
    let used = || {
        let quarantine = slabs().quarantine_limit();
        slabs().set_quarantine(0);
        slabs().set_quarantine(quarantine);
        let counts = mm().counts();
        let frames = counts.used_frames() - counts.used[Use::Slab as usize];
        (frames, heap::usage().0, table::count())
    };
    let mut before = None;
    for round in 0..rounds {
        for cpu in others() {
            kassert_eq!(hotplug::off(cpu), Ok(()), "round {round}");
        }
        kassert_eq!(smp::online(), CpuMask::only(CpuId::BOOT));
        for cpu in others() {
            kassert_eq!(hotplug::on(cpu), Ok(()), "round {round}");
        }
        // The first round may be the first to want something that is kept.
        let before = *before.get_or_insert_with(used);
        kassert_eq!(used(), before, "round {round}");
    }
    for cpu in others() {
        kassert_eq!(on(cpu, smp::this_cpu), Ok(cpu));
    }
    Ok(())
}

/// What runs while CPUs go and come.
struct Load {
    stop: AtomicBool,
    /// Turns of all threads.
    turns: AtomicU64,
    /// Times that something was wrong.
    wrong: AtomicU64,
    timers: AtomicU64,
    worked: AtomicU64,
}

impl Load {
    /// A thread that computes, sleeps, allocates, sets timers, calls.
    fn run(&self, seed: u64, timer: &Timer, item: &Arc<work::Work<Kernel>>) {
        let mut rng = Rng::new(seed);
        while !self.stop.load(Ordering::Acquire) {
            match rng.below(6) {
                0 => {
                    let deadline = time::now_ns() + rng.below(300_000);
                    sched::sleep_until(deadline);
                    let early = time::now_ns() < deadline;
                    self.wrong.fetch_add(u64::from(early), Ordering::Relaxed);
                }
                1 => {
                    timer.arm(time::now_ns() + rng.below(300_000));
                }
                2 => {
                    item.queue();
                }
                3 => {
                    let order = rng.below(3) as usize;
                    drop(Pages::alloc(mm(), Gfp::KERNEL, order, Use::Pages));
                }
                4 => {
                    let ran = AtomicU64::new(0);
                    let said = smp::call_all(&|| {
                        ran.fetch_add(1, Ordering::Relaxed);
                    });
                    let right = ran.into_inner() == said.count() as u64;
                    self.wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
                }
                _ => time::spin_ns(rng.below(50_000)),
            }
            self.turns.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Threads that are bound to every CPU, or to none, do all kinds of things meanwhile; up to all
/// CPUs but one are offline.
pub fn cycles_under_load(ctx: &mut Ctx) -> Outcome {
    let _back = AllBack;
    let load = Arc::new(Load {
        stop: AtomicBool::new(false),
        turns: AtomicU64::new(0),
        wrong: AtomicU64::new(0),
        timers: AtomicU64::new(0),
        worked: AtomicU64::new(0),
    });
    let alive = table::count();
    let queue = kassert_ok!(work::Queue::<Kernel>::new("load", Priority::Normal));
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for (number, cpu) in (0..).zip(smp::cpus()) {
        let timer = {
            let load = Arc::clone(&load);
            kassert_ok!(Timer::new(move || {
                load.timers.fetch_add(1, Ordering::Relaxed);
            }))
        };
        let item = {
            let load = Arc::clone(&load);
            work::Work::new(&queue, move |_| {
                load.worked.fetch_add(1, Ordering::Relaxed);
            })
        };
        let places = if number % 2 == 1 {
            CpuMask::only(cpu)
        } else {
            CpuMask::ALL
        };
        let (load, seed) = (Arc::clone(&load), ctx.rng().next_u64());
        threads.push(kassert_ok!(Builder::new().among(places).spawn(
            format_args!("load {number}"),
            move || {
                load.run(seed, &timer, &item);
                timer.cancel_sync();
                item.cancel_sync();
            }
        )));
    }
    let cpus: Vec<CpuId> = others().iter().collect();
    let mut failed = None;
    for _ in 0..kunit::rounds(100, 10) * 2 {
        let cpu = cpus[ctx.rng().below(cpus.len() as u64) as usize];
        let walk = if smp::online().contains(cpu) {
            hotplug::off
        } else {
            hotplug::on
        };
        failed = failed.or(walk(cpu).err());
        let before = load.turns.load(Ordering::Relaxed);
        wait_until(|| load.turns.load(Ordering::Relaxed) > before + 5);
    }
    load.stop.store(true, Ordering::Release);
    threads.into_iter().for_each(JoinHandle::join);
    drop(queue);
    kassert_eq!(failed, None);
    kassert_eq!(load.wrong.load(Ordering::Relaxed), 0);
    // A queue's worker says that it ends before its CPU has left it.
    let late = time::now_ns() + 10_000_000_000;
    wait_until(|| table::count() == alive || time::now_ns() > late);
    kassert_eq!(table::count(), alive);
    knote!(
        "{} turns, {} timers, {} runs of work",
        load.turns.load(Ordering::Relaxed),
        load.timers.load(Ordering::Relaxed),
        load.worked.load(Ordering::Relaxed)
    );
    Ok(())
}

/// Several threads take the same CPUs up and down: one after the other, and the word of the
/// last one holds.
pub fn controllers_take_turns(ctx: &mut Ctx) -> Outcome {
    const CONTROLLERS: usize = 3;
    let _back = AllBack;
    let rounds = kunit::rounds(100, 10);
    let mut threads: Vec<JoinHandle<Result<(), Error>>> = Vec::new();
    for _ in 0..CONTROLLERS {
        let mut rng = ctx.rng().split();
        threads.push(kassert_ok!(Builder::new().spawn(
            format_args!("controller"),
            move || {
                let cpus: Vec<CpuId> = others().iter().collect();
                for _ in 0..rounds {
                    let cpu = cpus[rng.below(cpus.len() as u64) as usize];
                    let up = rng.below(2) == 0;
                    let result = if up {
                        hotplug::on(cpu)
                    } else {
                        hotplug::off(cpu)
                    };
                    match result {
                        Ok(()) | Err(Error::AlreadyOnline(_) | Error::AlreadyOffline(_)) => {}
                        Err(error) => return Err(error),
                    }
                    let _stay = hotplug::read_lock();
                    let (online, status) = (smp::online(), hotplug::status(cpu));
                    let whole = if status.online { status.steps } else { 0 };
                    sched::yield_now();
                    if status.done != whole || smp::online() != online {
                        return Err(Error::NotPossible(cpu));
                    }
                }
                Ok(())
            }
        )));
    }
    for thread in threads {
        kassert_eq!(thread.join(), Ok(()));
    }
    Ok(())
}
