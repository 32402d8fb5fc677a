//! Interrupts and what they leave for later, on a CPU that goes.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use platform::{CpuId, CpuMask, Priority, deferred::Deferred, work};

use super::{AllBack, others, some_other, wait_until};
use crate::hotplug;
use crate::kunit::{self, Ctx, Outcome, kassert, kassert_eq, kassert_ok};
use crate::machine::Kernel;
use crate::sched::{Builder, JoinHandle};
use crate::softirq::{self, Kind};
use crate::timer::Timer;
use crate::{smp, time};

/// Timers that were set on a CPU fire elsewhere once it has gone, not early, once each; those
/// that are not due can be cancelled.
pub fn timers_fire(_: &mut Ctx) -> Outcome {
    const TIMERS: u64 = 8;
    for cpu in others() {
        let _back = AllBack;
        let calls = Arc::new(AtomicU64::new(0));
        let wrong = Arc::new(AtomicU64::new(0));
        let gone = Arc::new(AtomicBool::new(false));
        let due = time::now_ns() + 30_000_000;
        let mut timers: Vec<Timer> = Vec::new();
        for number in 0..TIMERS {
            let (calls, wrong, gone) = (calls.clone(), wrong.clone(), gone.clone());
            timers.push(kassert_ok!(Timer::new(move || {
                let early = time::now_ns() < due + number * 100_000;
                let there = gone.load(Ordering::Acquire) && smp::this_cpu() == cpu;
                wrong.fetch_add(u64::from(early || there), Ordering::Relaxed);
                calls.fetch_add(1, Ordering::Release);
            })));
        }
        let far = kassert_ok!(Timer::new(|| ()));
        smp::call_on(cpu, &|| {
            for (number, timer) in (0..).zip(&timers) {
                timer.arm(due + number * 100_000);
            }
            far.arm(due + 3_600_000_000_000);
        });
        kassert_eq!(hotplug::off(cpu), Ok(()));
        gone.store(true, Ordering::Release);
        wait_until(|| calls.load(Ordering::Acquire) == TIMERS);
        kassert_eq!(wrong.load(Ordering::Relaxed), 0);
        kassert!(timers.iter().all(|timer| !timer.cancel_sync()));
        kassert_eq!(calls.load(Ordering::Acquire), TIMERS);
        kassert!(far.is_armed());
        kassert!(far.cancel());
        kassert!(!far.is_armed());
        kassert_eq!(hotplug::on(cpu), Ok(()));
        // It has timers of its own again.
        smp::call_on(cpu, &|| {
            timers[0].arm(time::now_ns() + 100_000);
        });
        wait_until(|| calls.load(Ordering::Acquire) == TIMERS + 1);
    }
    Ok(())
}

/// The worker of a CPU that has gone runs its work on another one, and goes back.
pub fn work_is_done_elsewhere(_: &mut Ctx) -> Outcome {
    let queue = kassert_ok!(work::Queue::<Kernel>::new("hotplug", Priority::Normal));
    let place = Arc::new(AtomicU64::new(u64::MAX));
    let item = {
        let place = Arc::clone(&place);
        work::Work::new(&queue, move |_| {
            place.store(u64::from(smp::this_cpu().number()), Ordering::Release);
        })
    };
    let run_on = |cpu: CpuId| {
        item.queue_on(cpu);
        item.flush();
        CpuId::new(place.load(Ordering::Acquire) as u32)
    };
    for cpu in others() {
        let _back = AllBack;
        kassert_eq!(run_on(cpu), Some(cpu));
        kassert_eq!(hotplug::off(cpu), Ok(()));
        let elsewhere = run_on(cpu);
        kassert!(elsewhere.is_some_and(|place| place != cpu), "{elsewhere:?}");
        kassert_eq!(hotplug::on(cpu), Ok(()));
        kassert_eq!(run_on(cpu), Some(cpu));
    }
    Ok(())
}

static SOFT: AtomicU64 = AtomicU64::new(0);
static DEFERRED: Deferred<AtomicU64> = Deferred::new(AtomicU64::new(0), |this| {
    // Release: who waits for the count sees the rest.
    this.fetch_add(1, Ordering::Release);
});

/// Soft interrupts and deferred work that a CPU has taken on are done before it goes.
pub fn what_was_raised_is_run(_: &mut Ctx) -> Outcome {
    let cpu = some_other();
    let _back = AllBack;
    softirq::set_test(Some(|| {
        SOFT.fetch_add(1, Ordering::Release);
    }));
    for round in 1..=kunit::rounds(200, 10) {
        let (soft, deferred) = (
            SOFT.load(Ordering::Acquire),
            DEFERRED.load(Ordering::Acquire),
        );
        smp::call_on(cpu, &|| {
            softirq::raise(Kind::Test);
            DEFERRED.queue::<Kernel>();
        });
        let gone = hotplug::off(cpu);
        let ran = (
            SOFT.load(Ordering::Acquire),
            DEFERRED.load(Ordering::Acquire),
        );
        let back = hotplug::on(cpu);
        if (gone, back) != (Ok(()), Ok(())) || ran != (soft + 1, deferred + 1) {
            softirq::set_test(None);
        }
        kassert_eq!((gone, back), (Ok(()), Ok(())), "round {round}");
        kassert_eq!(ran, (soft + 1, deferred + 1), "round {round}");
    }
    softirq::set_test(None);
    Ok(())
}

/// What callers of [`calls_race_with_going`] saw.
#[derive(Default)]
struct Calls {
    stop: AtomicBool,
    /// Calls that ran on all CPUs.
    whole: AtomicU64,
    /// Those that did not.
    part: AtomicU64,
    /// Those that ran elsewhere than they say, or twice.
    wrong: AtomicU64,
}

impl Calls {
    /// Calls all CPUs, again and again.
    fn call(&self) {
        while !self.stop.load(Ordering::Acquire) {
            let (ran, twice) = (AtomicU64::new(0), AtomicU64::new(0));
            let said = smp::call_many(smp::cpus(), &|| {
                let own = CpuMask::only(smp::this_cpu()).bits();
                // Relaxed: the end of the call orders it.
                let before = ran.fetch_or(own, Ordering::Relaxed);
                twice.fetch_or(before & own, Ordering::Relaxed);
            });
            let right = ran.into_inner() == said.bits() && twice.into_inner() == 0;
            self.wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
            let all = said == smp::cpus();
            let count = if all { &self.whole } else { &self.part };
            count.fetch_add(1, Ordering::Relaxed);
            // Of nobody's pages; what counts is that it ends.
            smp::flush_tlb(0, 1);
        }
    }
}

/// Calls to all CPUs while CPUs go and come: each runs exactly where it says that it did, and
/// none waits for a CPU that has gone. Among them, those that drop translations.
pub fn calls_race_with_going(ctx: &mut Ctx) -> Outcome {
    const CALLERS: usize = 2;
    let _back = AllBack;
    let calls = Arc::new(Calls::default());
    let mut callers: Vec<JoinHandle<()>> = Vec::new();
    for _ in 0..CALLERS {
        let calls = Arc::clone(&calls);
        callers.push(kassert_ok!(
            Builder::new().spawn(format_args!("caller"), move || calls.call())
        ));
    }
    let cpus: Vec<CpuId> = others().iter().collect();
    let mut failed = None;
    let one_more = |count: &AtomicU64| {
        let before = count.load(Ordering::Relaxed);
        wait_until(|| count.load(Ordering::Relaxed) > before);
    };
    for _ in 0..kunit::rounds(300, 20) {
        let cpu = cpus[ctx.rng().below(cpus.len() as u64) as usize];
        failed = failed.or(hotplug::off(cpu).err());
        one_more(&calls.part);
        failed = failed.or(hotplug::on(cpu).err());
        one_more(&calls.whole);
        if failed.is_some() {
            break;
        }
    }
    calls.stop.store(true, Ordering::Release);
    callers.into_iter().for_each(JoinHandle::join);
    kassert_eq!(failed, None);
    kassert_eq!(calls.wrong.load(Ordering::Relaxed), 0);
    Ok(())
}
