//! Per-CPU data, counters and local locks under the model checker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Plain, Ordering::SeqCst};

use platform::{
    CpuId, Mark, Platform, Preempt,
    lock::LocalLock,
    lock_class,
    model::{self, Model, Setup},
    percpu::{Counter, PerCpu},
    sync::{AtomicU32, Ordering},
};

lock_class! {
    struct Local = ("local", 10);
}

type Locked<T> = PerCpu<LocalLock<T, Model, Local>, Model>;

#[test]
fn every_cpu_has_its_own() {
    Setup::new(2).check(|| {
        let data = PerCpu::<_, Model>::try_new(|cpu| AtomicU32::new(10 * cpu.number()));
        let data = Arc::new(data.unwrap());
        let there = Arc::clone(&data);
        let other = model::cpu(1, move || {
            let pinned = Preempt::disable();
            let own = there.here(&pinned);
            // One access after the other: nobody else writes here.
            own.store(own.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        });
        {
            let pinned = Preempt::disable();
            let own = data.here(&pinned);
            own.store(own.load(Ordering::Relaxed) + 2, Ordering::Relaxed);
        }
        other.join();
        let all: Vec<_> = data
            .iter()
            .map(|(cpu, value)| (cpu.number(), value.load(Ordering::Relaxed)))
            .collect();
        assert_eq!(all, [(0, 2), (1, 11)]);
    });
}

/// No addition is lost, and a sum taken meanwhile holds at least what was known of before.
#[test]
fn counters_add_up() {
    static DURING: [Plain; 4] = [const { Plain::new(0) }; 4];
    Setup::new(2).check(|| {
        let counter = Arc::new(Counter::<Model>::try_new().unwrap());
        let there = Arc::clone(&counter);
        let other = model::cpu(1, move || {
            there.add(1);
            there.add(1);
        });
        counter.add(1);
        let sum = counter.sum();
        assert!((1..=3).contains(&sum));
        DURING[sum as usize].fetch_add(1, SeqCst);
        other.join();
        assert_eq!(counter.sum(), 3);
        counter.add(1_u64.wrapping_neg());
        assert_eq!((counter.sum(), counter.on(CpuId::BOOT)), (2, 0));
    });
    assert!(DURING[1..].iter().all(|sum| sum.load(SeqCst) > 0));
}

/// An interrupt arrives anywhere in a section, and around it: it finds the lock taken inside
/// and free outside, and no two are ever inside.
#[test]
fn interrupts_meet_the_local_lock() {
    static MET: Plain = Plain::new(0);
    static FREE: Plain = Plain::new(0);
    Setup::new(2).check(|| {
        let data: Arc<Locked<u32>> = Arc::new(PerCpu::try_new(|_| LocalLock::new(0)).unwrap());
        let fallback = Arc::new(AtomicU32::new(0));
        let (handled, fell_back) = (Arc::clone(&data), Arc::clone(&fallback));
        model::on_interrupt(move || {
            if let Some(mut value) = handled.try_lock_here() {
                *value += 1;
                FREE.fetch_add(1, SeqCst);
            } else {
                fell_back.fetch_add(1, Ordering::Relaxed);
                MET.fetch_add(1, SeqCst);
            }
        });
        let other = model::cpu(1, || model::interrupt(CpuId::BOOT));
        for _ in 0..2 {
            let mut value = data.try_lock_here().expect("no interrupt leaves it taken");
            let old = *value;
            Model::mark(Mark::Step);
            *value = old + 1;
        }
        other.join();
        Model::mark(Mark::Step);
        let pinned = Preempt::disable();
        assert!(!data.here(&pinned).is_taken());
        drop(pinned);
        let own = *data.try_lock_here().unwrap();
        assert_eq!(own + fallback.load(Ordering::Relaxed), 3);
    });
    assert!(MET.load(SeqCst) > 0, "the lock was never met taken");
    assert!(FREE.load(SeqCst) > 0, "the lock was never met free");
}

/// When all CPUs are done with a structure its last owner takes their values from where it
/// is; that it knows they are done is what orders it (here, the join).
#[test]
fn the_last_owner_steals() {
    Setup::new(2).check(|| {
        let data: Arc<Locked<u32>> = Arc::new(PerCpu::try_new(|_| LocalLock::new(0)).unwrap());
        let there = Arc::clone(&data);
        let other = model::cpu(1, move || *there.try_lock_here().unwrap() += 5);
        *data.try_lock_here().unwrap() += 1;
        other.join();
        let mut sum = 0;
        for (_, lock) in data.iter() {
            // SAFETY: the other CPU has ended, and this one uses none meanwhile.
            let mut value = unsafe { lock.steal() }.expect("nobody has it");
            sum += core::mem::take(&mut *value);
            assert!(lock.is_taken());
        }
        assert_eq!(sum, 6);
        let mut data = Arc::into_inner(data).unwrap();
        assert!(data.iter_mut().all(|(_, lock)| *lock.get_mut() == 0));
    });
}

/// Without that knowledge it is a race, which is noticed: by the lock or by the checker.
#[test]
#[should_panic]
fn stealing_too_early_is_noticed() {
    Setup::new(2).check(|| {
        let data: Arc<Locked<u32>> = Arc::new(PerCpu::try_new(|_| LocalLock::new(0)).unwrap());
        let there = Arc::clone(&data);
        let other = model::cpu(1, move || *there.try_lock_here().unwrap() += 5);
        // SAFETY: there is no excuse; that is the test.
        drop(unsafe { data.on(CpuId::new(1).unwrap()).steal() });
        other.join();
    });
}

#[test]
#[should_panic(expected = "not the CPU's own")]
fn a_lock_that_lies_elsewhere_is_refused() {
    Setup::new(1).check(|| {
        let data = PerCpu::<u32, Model>::try_new(|_| 0).unwrap();
        let elsewhere: &'static LocalLock<u32, Model, Local> =
            Box::leak(Box::new(LocalLock::new(0)));
        drop(data.try_lock_in(|_| elsewhere));
    });
}
