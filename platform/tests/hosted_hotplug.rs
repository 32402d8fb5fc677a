//! CPUs of hosted machines that go and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use platform::hosted::{Hosted, JoinHandle, Machine};
use platform::{Context, CpuId, CpuMask, Mark, Platform, Priority, Spawn, SpawnError};

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

fn spawn(cpu: Option<CpuId>) -> Spawn {
    Spawn {
        name: "spawned",
        cpu,
        priority: Priority::Normal,
    }
}

/// Both functions run in the name of the CPU, with interrupts off, when its word says so.
#[test]
fn a_cpu_goes_and_comes_back() {
    let machine = Machine::builder().cpus(3).build();
    let injected = Arc::new(AtomicBool::new(false));
    let alone = Arc::clone(&injected);
    let _nmi = machine.on_nmi(1, move || assert!(!alone.load(Relaxed), "not alone"));
    machine.run(|| {
        let (last, word) = (cpu(2), Hosted::idle_word(cpu(2)));
        let there = |watching| {
            injected.store(true, Relaxed);
            assert_eq!(Hosted::current_cpu(), last);
            assert_eq!(Hosted::context(), Context::Task);
            assert!(!Hosted::irqs_enabled() && !Hosted::may_sleep());
            assert_eq!(word.is_watching(), watching);
            Hosted::mark(Mark::Step);
            injected.store(false, Relaxed);
        };
        for _ in 0..3 {
            Hosted::offline(last, || there(true));
            assert_eq!(Hosted::current_cpu(), CpuId::BOOT);
            assert!(Hosted::may_sleep() && Hosted::irqs_enabled());
            assert_eq!(Hosted::online_cpus(), CpuMask::first_n(2));
            assert!(word.snapshot().in_eqs());
            let before = word.snapshot();
            Hosted::call(CpuMask::ALL, &|| assert_ne!(Hosted::current_cpu(), last));
            let refused = Hosted::spawn(spawn(Some(last)), |_| {}, 0);
            assert_eq!(refused.unwrap_err(), SpawnError::Offline(last));
            assert_eq!(word.snapshot(), before, "nothing ran there");
            Hosted::online(last, || there(false));
            assert_eq!(Hosted::online_cpus(), CpuMask::first_n(3));
            machine.spawn_on(last, || ()).join();
        }
    });
}

/// Threads of its own sleep until it is back, whoever wakes them.
#[test]
fn its_own_threads_wait_for_it() {
    let machine = Machine::builder().cpus(2).build();
    machine.run(|| {
        let runs = Arc::new(AtomicU32::new(0));
        let there = Arc::clone(&runs);
        let own = machine.spawn_on(cpu(1), move || {
            there.store(1, SeqCst);
            while there.load(SeqCst) < 2 {
                Hosted::park();
            }
            assert_eq!(Hosted::current_cpu(), cpu(1));
            there.store(3, SeqCst);
        });
        while runs.load(SeqCst) != 1 {
            Hosted::relax();
        }
        Hosted::offline(cpu(1), || ());
        runs.store(2, SeqCst);
        Hosted::unpark(own.thread());
        Hosted::park_until(Hosted::now_ns() + 5_000_000);
        assert_eq!(runs.load(SeqCst), 2, "it runs on a CPU that is away");
        Hosted::online(cpu(1), || ());
        own.join();
        assert_eq!(runs.load(SeqCst), 3);
    });
}

/// Calls from all sides, threads that go anywhere and threads that stay, with interrupts,
/// while CPUs come and go: nothing runs on a CPU between its last function and its first.
#[test]
fn nothing_runs_on_a_cpu_that_is_away() {
    const CPUS: u32 = 4;
    let machine = Machine::builder().cpus(CPUS as usize).seed(17).build();
    let away: Arc<[AtomicBool; CPUS as usize]> = Default::default();
    let look = {
        let away = Arc::clone(&away);
        move || {
            let cpu = Hosted::current_cpu();
            assert!(!away[cpu.index()].load(SeqCst), "runs on cpu{cpu}");
        }
    };
    let noise = (
        machine.on_interrupt(9, look.clone()),
        machine.on_nmi(13, look.clone()),
    );
    let stop = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicUsize::new(0));
    machine.run(|| {
        let threads: Vec<_> = (0..6)
            .map(|index| {
                let place = (index < 3).then(|| cpu(index + 1));
                let (stop, calls, look) = (Arc::clone(&stop), Arc::clone(&calls), look.clone());
                machine.spawn(spawn(place), move || {
                    while !stop.load(SeqCst) {
                        Hosted::call(CpuMask::ALL, &|| {
                            look();
                            calls.fetch_add(1, Relaxed);
                        });
                        Hosted::preempt_disable();
                        look();
                        Hosted::preempt_enable();
                        Hosted::park_until(Hosted::now_ns() + 10_000);
                    }
                })
            })
            .collect();
        for round in 0..200 {
            let number = 1 + round % (CPUS - 1);
            let mark = &away[number as usize];
            Hosted::offline(cpu(number), || mark.store(true, SeqCst));
            Hosted::park_until(Hosted::now_ns() + 50_000);
            Hosted::online(cpu(number), || mark.store(false, SeqCst));
        }
        stop.store(true, SeqCst);
        threads.into_iter().for_each(JoinHandle::join);
    });
    drop(noise);
    assert!(calls.load(Relaxed) > 500);
}

/// Threads that may run anywhere leave a CPU that goes, though they never sleep, and stay
/// away from it.
#[test]
fn threads_of_no_cpu_leave() {
    let machine = Machine::builder()
        .cpus(3)
        .seed(23)
        .limit(Duration::from_secs(30))
        .build();
    let stop = Arc::new(AtomicBool::new(false));
    let away = Arc::new(AtomicBool::new(false));
    machine.run(|| {
        let threads: Vec<_> = (0..5)
            .map(|_| {
                let (stop, away) = (Arc::clone(&stop), Arc::clone(&away));
                machine.spawn(spawn(None), move || {
                    while !stop.load(SeqCst) {
                        Hosted::preempt_disable();
                        let here = Hosted::current_cpu();
                        assert!(here != cpu(2) || !away.load(SeqCst), "runs on it");
                        Hosted::preempt_enable();
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            Hosted::offline(cpu(2), || away.store(true, SeqCst));
            (0..50).for_each(|_| Hosted::yield_now());
            Hosted::online(cpu(2), || away.store(false, SeqCst));
            (0..50).for_each(|_| Hosted::yield_now());
        }
        stop.store(true, SeqCst);
        threads.into_iter().for_each(JoinHandle::join);
    });
}
