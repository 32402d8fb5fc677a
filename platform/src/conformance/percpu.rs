//! Per-CPU data, counters and local locks.

use super::{Failure, Outcome, Size, ensure, equal, threads::run};
use crate::{
    CpuId, Mark, Platform, Preempt,
    lock::LocalLock,
    lock_class,
    percpu::{Counter, PerCpu},
    sync::{AtomicU64, AtomicUsize, Ordering},
};

lock_class! {
    struct LocalTest = ("conformance local", 208);
    struct IrqLocalTest = ("conformance irq local", 209);
    struct StolenTest = ("conformance stolen", 210);
}

/// A test needs memory, and there is none.
const NO_MEMORY: Failure = Failure {
    what: "per-CPU memory",
    found: 0,
    wanted: 1,
};

/// Each CPU has a value of its own, aligned, made for that CPU, and its own thread finds it.
pub fn every_cpu_has_its_own<P: Platform>(size: Size) -> Outcome {
    #[repr(align(64))]
    struct Value {
        cpu: CpuId,
        count: AtomicU64,
    }
    struct Shared<P: Platform> {
        data: PerCpu<Value, P>,
        rounds: usize,
    }
    let data = PerCpu::try_new(|cpu| Value {
        cpu,
        count: AtomicU64::new(0),
    });
    let shared = Shared::<P> {
        data: data.ok_or(NO_MEMORY)?,
        rounds: size.rounds,
    };
    let mut last = None;
    for (cpu, value) in shared.data.iter() {
        ensure("made for its CPU", value.cpu == cpu)?;
        let addr = core::ptr::from_ref(value).addr();
        equal("alignment", addr as u64 % 64, 0)?;
        ensure("no two at one address", last != Some(addr))?;
        last = Some(addr);
    }
    run::<P, _>(size, &shared, |shared, _| {
        for _ in 0..shared.rounds {
            let pinned = Preempt::disable();
            let own = shared.data.here(&pinned);
            ensure("the own CPU's", own.cpu == pinned.cpu())?;
            ensure(
                "the same from elsewhere",
                core::ptr::eq(own, shared.data.on(pinned.cpu())),
            )?;
            // One access after the other: no other CPU writes here.
            own.count
                .store(own.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    let sum = shared
        .data
        .iter()
        .map(|(_, value)| value.count.load(Ordering::Relaxed))
        .sum();
    equal("additions", sum, (size.threads * size.rounds) as u64)
}

/// Every CPU's value is dropped once, also where values have no size.
pub fn values_are_dropped<P: Platform>(size: Size) -> Outcome {
    struct Counted<'a>(&'a AtomicUsize);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let cpus = P::possible_cpus().count();
    for _ in 0..size.rounds {
        let dropped = AtomicUsize::new(0);
        let data = PerCpu::<_, P>::try_new(|_| Counted(&dropped)).ok_or(NO_MEMORY)?;
        equal("dropped early", dropped.load(Ordering::Relaxed) as u64, 0)?;
        drop(data);
        equal(
            "dropped",
            dropped.load(Ordering::Relaxed) as u64,
            cpus as u64,
        )?;
        let empty = PerCpu::<(), P>::try_new(|_| ()).ok_or(NO_MEMORY)?;
        equal(
            "values without a size",
            empty.iter().count() as u64,
            cpus as u64,
        )?;
    }
    Ok(())
}

/// No addition to a counter is lost, and its parts are its sum.
pub fn counters_add_up<P: Platform>(size: Size) -> Outcome {
    struct Shared<P: Platform> {
        counter: Counter<P>,
        rounds: usize,
    }
    let shared = Shared::<P> {
        counter: Counter::try_new().ok_or(NO_MEMORY)?,
        rounds: size.rounds,
    };
    run::<P, _>(size, &shared, |shared, _| {
        for _ in 0..shared.rounds {
            let pinned = Preempt::<P>::disable();
            let before = shared.counter.on(pinned.cpu());
            shared.counter.add(3);
            let own = shared.counter.on(pinned.cpu());
            equal("the own CPU's part", own, before + 3)?;
            ensure("a sum has the own additions", shared.counter.sum() >= own)?;
            drop(pinned);
            shared.counter.add(3);
        }
        Ok(())
    })?;
    let wanted = 6 * (size.threads * size.rounds) as u64;
    equal("sum", shared.counter.sum(), wanted)?;
    let parts = P::possible_cpus().iter().map(|cpu| shared.counter.on(cpu));
    equal("parts", parts.sum(), wanted)?;
    shared.counter.add(wanted.wrapping_neg());
    equal("taken away", shared.counter.sum(), 0)
}

/// Each CPU's local lock is free to its threads, whatever other CPUs do, and taken inside.
pub fn local_lock_excludes<P: Platform>(size: Size) -> Outcome {
    struct Shared<P: Platform> {
        data: PerCpu<LocalLock<u64, P, LocalTest>, P>,
        rounds: usize,
    }
    let data = PerCpu::try_new(|_| LocalLock::new(0));
    let mut shared = Shared::<P> {
        data: data.ok_or(NO_MEMORY)?,
        rounds: size.rounds,
    };
    run::<P, _>(size, &shared, |shared, _| {
        for _ in 0..shared.rounds {
            let held = shared.data.try_lock_here();
            ensure("free on its CPU", held.is_some())?;
            ensure("no sleep inside", !P::may_sleep())?;
            ensure("taken inside", shared.data.try_lock_here().is_none())?;
            if let Some(mut value) = held {
                *value += 1;
            }
        }
        Ok(())
    })?;
    ensure("may sleep again", P::may_sleep())?;
    let sum = shared
        .data
        .iter_mut()
        .map(|(_, lock)| *lock.get_mut())
        .sum();
    equal("additions", sum, (size.threads * size.rounds) as u64)
}

/// Interrupts use the local lock of the CPU that they come to: they find it taken or free,
/// and all that was done is there in the end. (The machine must take calls.)
pub fn local_lock_in_interrupts<P: Platform>(size: Size) -> Outcome {
    struct Shared<P: Platform> {
        data: PerCpu<LocalLock<u64, P, IrqLocalTest>, P>,
        /// What was done without the lock.
        fallback: Counter<P>,
        rounds: usize,
    }
    let data = PerCpu::try_new(|_| LocalLock::new(0));
    let mut shared = Shared::<P> {
        data: data.ok_or(NO_MEMORY)?,
        fallback: Counter::try_new().ok_or(NO_MEMORY)?,
        rounds: size.rounds,
    };
    run::<P, _>(size, &shared, |shared, index| {
        for _ in 0..shared.rounds {
            if index == 0 {
                P::call(P::online_cpus(), &|| match shared.data.try_lock_here() {
                    Some(mut value) => *value += 1,
                    None => shared.fallback.add(1),
                });
            } else {
                let mut value = shared.data.try_lock_here().ok_or(Failure {
                    what: "free where nothing was interrupted",
                    found: 0,
                    wanted: 1,
                })?;
                let old = *value;
                P::mark(Mark::Step);
                *value = old + 1;
            }
        }
        Ok(())
    })?;
    let sum: u64 = shared
        .data
        .iter_mut()
        .map(|(_, lock)| *lock.get_mut())
        .sum();
    let calls = P::online_cpus().count() * size.rounds;
    let wanted = calls + (size.threads - 1) * size.rounds;
    equal("additions", sum + shared.fallback.sum(), wanted as u64)
}

/// When all threads are done with the locks one takes all CPUs' values.
pub fn local_lock_is_stolen_last<P: Platform>(size: Size) -> Outcome {
    struct Shared<P: Platform> {
        data: PerCpu<LocalLock<u64, P, StolenTest>, P>,
        done: AtomicUsize,
        size: Size,
        found: AtomicU64,
    }
    let data = PerCpu::try_new(|_| LocalLock::new(0));
    let shared = Shared::<P> {
        data: data.ok_or(NO_MEMORY)?,
        done: AtomicUsize::new(0),
        size,
        found: AtomicU64::new(0),
    };
    run::<P, _>(size, &shared, |shared, _| {
        for _ in 0..shared.size.rounds {
            if let Some(mut value) = shared.data.try_lock_here() {
                *value += 1;
            }
        }
        // Who is last knows that all others are done. AcqRel: and sees what they did.
        if shared.done.fetch_add(1, Ordering::AcqRel) + 1 == shared.size.threads {
            for (_, lock) in shared.data.iter() {
                // SAFETY: nobody uses the locks any more.
                let mut value = unsafe { lock.steal() }.ok_or(Failure {
                    what: "a lock is taken after its last use",
                    found: 1,
                    wanted: 0,
                })?;
                shared
                    .found
                    .fetch_add(core::mem::take(&mut *value), Ordering::Relaxed);
                drop(value);
                ensure("given back", !lock.is_taken())?;
            }
        }
        Ok(())
    })?;
    equal(
        "stolen",
        shared.found.load(Ordering::Relaxed),
        (size.threads * size.rounds) as u64,
    )
}
