//! What becomes of the threads of a CPU that goes.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use platform::{CpuId, CpuMask, Priority};

use super::{AllBack, on, others, some_other, wait_until};
use crate::arch::preempt;
use crate::hotplug;
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok};
use crate::sched::{self, Builder, JoinHandle};
use crate::timer::TICK_NS;
use crate::{smp, time};

/// A thread that computes when nobody else wants to, and where it did.
struct Busy {
    turns: Arc<AtomicU64>,
    seen: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    fn start(allowed: CpuMask) -> Option<Self> {
        let (turns, seen, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = {
            let (turns, seen, stop) = (turns.clone(), seen.clone(), stop.clone());
            Builder::new()
                .among(allowed)
                .priority(Priority::Low)
                .spawn(format_args!("busy"), move || {
                    while !stop.load(Ordering::Relaxed) {
                        seen.fetch_or(CpuMask::only(smp::this_cpu()).bits(), Ordering::Relaxed);
                        turns.fetch_add(1, Ordering::Relaxed);
                        // Where one host thread is all CPUs, it goes on to the next.
                        core::hint::spin_loop();
                    }
                })
                .ok()?
        };
        Some(Self {
            turns,
            seen,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it runs from now on, after some turns.
    fn where_now(&self) -> CpuMask {
        // A turn may be half done.
        self.wait_for_turns(2);
        self.seen.store(0, Ordering::Relaxed);
        self.wait_for_turns(2);
        CpuMask::from_bits(self.seen.load(Ordering::Relaxed))
    }

    fn wait_for_turns(&self, turns: u64) {
        let wanted = self.turns.load(Ordering::Relaxed) + turns;
        wait_until(|| self.turns.load(Ordering::Relaxed) >= wanted);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

/// Threads that compute on a CPU, bound to it or not, go on elsewhere without a word of their
/// own; the one that is bound comes back.
pub fn threads_go_on(_: &mut Ctx) -> Outcome {
    // Where instructions are counted, threads that compute take long.
    let cpus = if time::is_exact() {
        CpuMask::only(some_other())
    } else {
        others()
    };
    for cpu in cpus {
        let _back = AllBack;
        let bound = kassert_ok!(Busy::start(CpuMask::only(cpu)));
        let either = kassert_ok!(Busy::start(CpuMask::only(cpu).with(CpuId::BOOT)));
        kassert_eq!(bound.where_now(), CpuMask::only(cpu));
        kassert_eq!(hotplug::off(cpu), Ok(()));
        let strayed = bound.where_now();
        kassert!(!strayed.contains(cpu), "{strayed} without {cpu}");
        kassert_eq!(either.where_now(), CpuMask::only(CpuId::BOOT));
        kassert_eq!(hotplug::on(cpu), Ok(()));
        wait_until(|| bound.where_now() == CpuMask::only(cpu));
        // And stays there.
        sched::sleep_ns(2 * TICK_NS);
        kassert_eq!(bound.where_now(), CpuMask::only(cpu));
    }
    Ok(())
}

/// A thread that sleeps is woken although its only CPU has gone: by another thread, or by its
/// alarm, which was set there.
pub fn sleepers_wake_elsewhere(_: &mut Ctx) -> Outcome {
    for cpu in others() {
        let _back = AllBack;
        let go_on = Arc::new(AtomicBool::new(false));
        let parked = {
            let go_on = Arc::clone(&go_on);
            kassert_ok!(
                Builder::new()
                    .on(cpu)
                    .spawn(format_args!("parked"), move || {
                        while !go_on.load(Ordering::Acquire) {
                            sched::park();
                        }
                        smp::this_cpu()
                    })
            )
        };
        let deadline = time::now_ns() + 20_000_000;
        let sleeper = kassert_ok!(Builder::new().on(cpu).spawn(
            format_args!("sleeper"),
            move || {
                sched::sleep_until(deadline);
                time::now_ns()
            }
        ));
        wait_until(|| parked.thread().is_asleep());
        kassert_eq!(hotplug::off(cpu), Ok(()));
        go_on.store(true, Ordering::Release);
        sched::unpark(parked.thread());
        let there = parked.join();
        kassert!(there != cpu, "it ran on a CPU that is offline");
        kassert!(sleeper.join() >= deadline);
    }
    Ok(())
}

/// A thread that stays with its CPU is not run elsewhere, and goes on when the CPU is back.
pub fn threads_that_stay_wait(_: &mut Ctx) -> Outcome {
    let _back = AllBack;
    let cpu = some_other();
    let seen = Arc::new(AtomicU64::new(0));
    let thread = {
        let seen = Arc::clone(&seen);
        kassert_ok!(
            Builder::new()
                .stays_on(cpu)
                .spawn(format_args!("stays"), move || {
                    sched::park();
                    seen.store(CpuMask::only(smp::this_cpu()).bits(), Ordering::Release);
                })
        )
    };
    wait_until(|| thread.thread().is_asleep());
    kassert_eq!(hotplug::off(cpu), Ok(()));
    sched::unpark(thread.thread());
    sched::sleep_ns(2 * TICK_NS);
    let while_off = seen.load(Ordering::Acquire);
    kassert_eq!(hotplug::on(cpu), Ok(()));
    thread.join();
    kassert_eq!(while_off, 0);
    kassert_eq!(seen.load(Ordering::Acquire), CpuMask::only(cpu).bits());
    Ok(())
}

/// A thread with preemption off, on a CPU, until it is told to end.
struct Section {
    end: Arc<AtomicBool>,
    thread: JoinHandle<bool>,
}

impl Section {
    /// Starts it; it has begun.
    fn start(cpu: CpuId) -> Option<Self> {
        let (inside, end) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = {
            let (inside, end) = (Arc::clone(&inside), Arc::clone(&end));
            let section = move || {
                preempt::disable();
                inside.store(true, Ordering::Release);
                while !end.load(Ordering::Acquire) {
                    core::hint::spin_loop();
                }
                let whole = smp::this_cpu() == cpu && smp::online().contains(cpu);
                preempt::enable();
                whole
            };
            let builder = Builder::new().on(cpu);
            builder.spawn(format_args!("section"), section).ok()?
        };
        wait_until(|| inside.load(Ordering::Acquire));
        Some(Self { end, thread })
    }

    /// Ends it. Whether the CPU was online to its end.
    fn end(self) -> bool {
        self.end.store(true, Ordering::Release);
        self.thread.join()
    }
}

/// A CPU does not go while one of its threads has preemption off.
pub fn section_is_waited_for(_: &mut Ctx) -> Outcome {
    let _back = AllBack;
    let cpu = some_other();
    let section = kassert_ok!(Section::start(cpu));
    let controller = kassert_ok!(
        Builder::new()
            .on(CpuId::BOOT)
            .spawn(format_args!("controller"), move || hotplug::off(cpu))
    );
    // It has begun, and cannot get further.
    wait_until(|| !smp::active().contains(cpu));
    sched::sleep_ns(1_000_000);
    let early = !smp::online().contains(cpu);
    let whole = section.end();
    kassert_eq!(controller.join(), Ok(()));
    kassert!(!early && whole, "it went in the middle of a section");
    kassert_eq!(hotplug::on(cpu), Ok(()));
    kassert_eq!(on(cpu, smp::this_cpu), Ok(cpu));
    Ok(())
}

/// One that does not come to rest in time stays, and threads may run there again.
pub fn who_does_not_rest_stays(_: &mut Ctx) -> Outcome {
    let _back = AllBack;
    let cpu = some_other();
    let section = kassert_ok!(Section::start(cpu));
    let patience = hotplug::set_patience(1_000_000);
    let refused = hotplug::off(cpu);
    hotplug::set_patience(patience);
    let active = smp::active();
    let whole = section.end();
    kassert_eq!(
        refused,
        Err(hotplug::Error::Step {
            cpu,
            step: "run",
            why: "it does not come to rest"
        })
    );
    kassert_eq!(active, smp::cpus());
    kassert!(whole);
    kassert_eq!(on(cpu, smp::this_cpu), Ok(cpu));
    kassert_eq!(hotplug::off(cpu), Ok(()));
    Ok(())
}
