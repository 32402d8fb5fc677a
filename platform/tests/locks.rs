//! Locks on hosted machines: interrupts and NMIs that want what they interrupted, and the
//! wrong uses that are reported.
#![cfg(feature = "hosted")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use platform::{
    CpuId, Platform,
    hosted::{Hosted, Machine},
    lock::{IrqSpinLock, LocalLock, SeqLock, SpinLock},
    lock_class,
    percpu::PerCpu,
};

lock_class! {
    struct Local = ("test local", 10);
    struct Irq = ("test irq", 20);
    struct Seq = ("test seq", 30);
    struct Wrong = ("test wrong", 40);
}

const ROUNDS: u64 = 5_000;

/// Interrupts and NMIs use the local lock of the CPU that they come to; they meet it taken
/// and free, and nothing is lost.
#[test]
fn handlers_meet_the_local_lock() {
    let machine = Machine::builder().cpus(4).seed(1).build();
    let data: Option<PerCpu<LocalLock<u64, Hosted, Local>, Hosted>> =
        machine.run(|| PerCpu::try_new(|_| LocalLock::new(0)));
    let data = Arc::new(data.expect("memory"));
    let [met, free] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let handler = || {
        let (data, met, free) = (Arc::clone(&data), Arc::clone(&met), Arc::clone(&free));
        move || match data.try_lock_here() {
            Some(mut value) => {
                *value += 1;
                free.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                met.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let injected = (
        machine.on_interrupt(5, handler()),
        machine.on_nmi(5, handler()),
    );
    machine.run_on_all(|_| {
        for _ in 0..ROUNDS {
            let mut value = data.try_lock_here().expect("handlers give it back");
            let old = *value;
            Hosted::mark(platform::Mark::Step);
            *value = old + 1;
        }
    });
    drop(injected);
    let [met, free] = [met, free].map(|count| count.load(Ordering::Relaxed));
    assert!(
        met > 100 && free > 100,
        "met {met} times taken, {free} times free"
    );
    let mut data = Arc::into_inner(data).expect("handlers are gone");
    machine.run(move || {
        let sum: u64 = data.iter_mut().map(|(_, lock)| *lock.get_mut()).sum();
        assert_eq!(sum, 4 * ROUNDS + free);
    });
}

/// An interrupt handler takes the lock that the thread takes: never inside.
#[test]
fn handlers_wait_outside_of_irq_locks() {
    let machine = Machine::builder().cpus(2).seed(2).build();
    let lock = Arc::new(IrqSpinLock::<_, Hosted, Irq>::new(0_u64));
    let handled = Arc::new(AtomicU64::new(0));
    let (there, count) = (Arc::clone(&lock), Arc::clone(&handled));
    let injected = machine.on_interrupt(5, move || {
        *there.lock() += 1;
        count.fetch_add(1, Ordering::Relaxed);
    });
    machine.run_on_all(|_| {
        for _ in 0..ROUNDS {
            *lock.lock() += 1;
        }
    });
    drop(injected);
    let handled = handled.load(Ordering::Relaxed);
    assert!(handled > 100);
    assert_eq!(machine.run(|| *lock.lock()), 2 * ROUNDS + handled);
}

/// An NMI may try to read a sequence lock that its CPU is writing.
#[test]
fn nmis_read_or_give_up() {
    let machine = Machine::builder().cpus(2).seed(3).build();
    let lock = Arc::new(SeqLock::<[u64; 4], Hosted, Seq, 4>::new([0; 4]));
    let [read, gave_up] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let (there, reads, misses) = (Arc::clone(&lock), Arc::clone(&read), Arc::clone(&gave_up));
    let injected = machine.on_nmi(5, move || match there.try_read() {
        Some(words) => {
            assert_eq!(words, [words[0]; 4]);
            reads.fetch_add(1, Ordering::Relaxed);
        }
        None => {
            misses.fetch_add(1, Ordering::Relaxed);
        }
    });
    machine.run_on_all(|cpu| {
        for _ in 0..ROUNDS {
            if cpu == CpuId::BOOT {
                lock.update(|words| words.map(|word| word + 1));
            } else {
                let words = lock.read();
                assert_eq!(words, [words[0]; 4]);
            }
        }
    });
    drop(injected);
    assert!(read.load(Ordering::Relaxed) > 100);
    assert!(gave_up.load(Ordering::Relaxed) > 100);
}

#[test]
fn unlock_by_another_cpu_is_reported() {
    let machine = Machine::builder().cpus(2).build();
    machine.take_reports();
    let lock = SpinLock::<_, Hosted, Wrong>::new(());
    machine.run_on_all(|cpu| {
        if cpu == CpuId::BOOT {
            core::mem::forget(lock.lock());
            while lock.holder().is_some() {
                Hosted::relax();
            }
            // What the forgotten guard turned off.
            Hosted::preempt_enable();
        } else {
            while lock.holder() != Some(CpuId::BOOT) {
                Hosted::relax();
            }
            // SAFETY: nobody uses the value; by another CPU, which is the test.
            unsafe { lock.force_unlock() };
        }
    });
    let reports = machine.take_reports();
    let says = |text: &str| reports.iter().any(|report| report.contains(text));
    assert!(
        says("unlock by another CPU: cpu1") && says("test wrong"),
        "{reports:?}"
    );
}

#[test]
fn unlock_of_a_free_lock_is_reported() {
    let machine = Machine::builder().build();
    machine.take_reports();
    let lock = SpinLock::<_, Hosted, Wrong>::new(());
    // SAFETY: nobody uses the value; it is not held, which is the test.
    machine.run(|| unsafe { lock.force_unlock() });
    let reports = machine.take_reports();
    let found = reports
        .iter()
        .any(|report| report.contains("unlock of a free lock"));
    assert!(found, "{reports:?}");
}

/// It cannot go on, so it panics after the report.
#[test]
fn recursion_is_reported_and_panics() {
    let machine = Machine::builder().build();
    machine.take_reports();
    let outcome = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        machine.run(|| {
            let lock = SpinLock::<_, Hosted, Wrong>::new(());
            let _first = lock.lock();
            let _second = lock.lock();
        });
    }));
    assert!(outcome.is_err());
    let reports = machine.take_reports();
    let says = |text: &str| reports.iter().any(|report| report.contains(text));
    assert!(
        says("recursion: cpu0") && says("tests/locks.rs"),
        "{reports:?}"
    );
    // The machine has failed.
    core::mem::forget(machine);
}

/// Stealing a lock that is in use is refused and reported.
#[test]
fn stealing_what_is_in_use_is_reported() {
    let machine = Machine::builder().build();
    machine.take_reports();
    machine.run(|| {
        let data: PerCpu<LocalLock<u64, Hosted, Local>, Hosted> =
            PerCpu::try_new(|_| LocalLock::new(0)).expect("memory");
        let held = data.try_lock_here();
        // SAFETY: it is refused.
        assert!(unsafe { data.on(CpuId::BOOT).steal() }.is_none());
        drop(held);
        // SAFETY: nobody uses it.
        assert!(unsafe { data.on(CpuId::BOOT).steal() }.is_some());
    });
    let reports = machine.take_reports();
    let found = reports.iter().any(|report| report.contains("while in use"));
    assert!(found, "{reports:?}");
}
