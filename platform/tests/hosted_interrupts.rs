//! The hosted machine: interrupts, NMIs, calls, deferred work, per-CPU memory, lock checks.

use std::alloc::Layout;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use platform::deferred::Deferred;
use platform::hosted::{Hosted, Machine};
use platform::lock::{IrqSpinLock, SpinLock};
use platform::percpu::Counter;
use platform::{Context, CpuId, CpuMask, IrqsOff, Mark, Platform, Preempt, lock_class};

lock_class! {
    struct Plain = ("plain", 10);
    struct Irq = ("irq", 20);
}

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

/// Counts in a handler, and checks that nothing comes into one that should not.
#[derive(Default)]
struct Seen {
    irqs: AtomicUsize,
    nmis: AtomicUsize,
    nmis_in_irqs: AtomicUsize,
    nmis_with_irqs_off: AtomicUsize,
}

#[test]
fn injected_interrupts_come_and_nest() {
    let machine = Machine::builder().cpus(2).seed(11).build();
    let seen = Arc::new(Seen::default());
    let (irq, nmi) = (Arc::clone(&seen), Arc::clone(&seen));
    let in_irq = Arc::new(AtomicBool::new(false));
    let irqs_off = Arc::new(AtomicBool::new(false));
    let (irq_in_irq, nmi_in_irq, nmi_irqs_off) = (
        Arc::clone(&in_irq),
        Arc::clone(&in_irq),
        Arc::clone(&irqs_off),
    );
    let _irq = machine.on_interrupt(8, move || {
        if Hosted::current_cpu() != CpuId::BOOT {
            return;
        }
        assert_eq!(Hosted::context(), Context::HardIrq);
        assert!(!Hosted::irqs_enabled() && !Hosted::may_sleep());
        assert!(!irq_in_irq.swap(true, Ordering::Relaxed), "nested");
        irq.irqs.fetch_add(1, Ordering::Relaxed);
        for _ in 0..4 {
            Hosted::mark(Mark::Step);
        }
        irq_in_irq.store(false, Ordering::Relaxed);
    });
    let _nmi = machine.on_nmi(8, move || {
        if Hosted::current_cpu() != CpuId::BOOT {
            return;
        }
        assert_eq!(Hosted::context(), Context::Nmi);
        assert!(!Hosted::irqs_enabled());
        nmi.nmis.fetch_add(1, Ordering::Relaxed);
        if nmi_in_irq.load(Ordering::Relaxed) {
            nmi.nmis_in_irqs.fetch_add(1, Ordering::Relaxed);
        }
        if nmi_irqs_off.load(Ordering::Relaxed) {
            nmi.nmis_with_irqs_off.fetch_add(1, Ordering::Relaxed);
        }
        let before = nmi.nmis.load(Ordering::Relaxed);
        for _ in 0..4 {
            Hosted::mark(Mark::Step);
        }
        assert_eq!(nmi.nmis.load(Ordering::Relaxed), before, "an NMI in an NMI");
    });
    machine.run(|| {
        for _ in 0..2_000 {
            Hosted::mark(Mark::Step);
            assert_eq!(Hosted::context(), Context::Task);
            assert!(Hosted::may_sleep());
        }
        let irqs = seen.irqs.load(Ordering::Relaxed);
        irqs_off.store(true, Ordering::Relaxed);
        let off = IrqsOff::<Hosted>::disable();
        for _ in 0..2_000 {
            Hosted::mark(Mark::Step);
        }
        assert_eq!(
            seen.irqs.load(Ordering::Relaxed),
            irqs,
            "with interrupts off"
        );
        drop(off);
        irqs_off.store(false, Ordering::Relaxed);
        // With preemption off they do come.
        let preempt = Preempt::<Hosted>::disable();
        for _ in 0..2_000 {
            Hosted::mark(Mark::Step);
        }
        drop(preempt);
        assert!(seen.irqs.load(Ordering::Relaxed) > irqs);
    });
    for (what, count) in [
        ("irqs", &seen.irqs),
        ("nmis", &seen.nmis),
        ("nmis in irqs", &seen.nmis_in_irqs),
        ("nmis with irqs off", &seen.nmis_with_irqs_off),
    ] {
        let count = count.load(Ordering::Relaxed);
        assert!(count > 50, "{what}: {count}");
    }
}

#[test]
fn a_dropped_injection_stays_away() {
    let machine = Machine::builder().build();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    machine.run(|| {
        let injection = machine.on_interrupt(1, move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        Hosted::mark(Mark::Step);
        drop(injection);
        assert_eq!(count.load(Ordering::Relaxed), 1);
        Hosted::mark(Mark::Step);
        assert_eq!(count.load(Ordering::Relaxed), 1);
    });
}

/// Everyone calls everyone, some CPUs idle; each call runs once on each, in an interrupt.
#[test]
fn calls_reach_all_cpus() {
    const CPUS: usize = 6;
    const ROUNDS: usize = 300;
    let machine = Machine::builder().cpus(CPUS).seed(12).build();
    let ran: [AtomicUsize; CPUS] = Default::default();
    machine.run_on_all(|own| {
        // The others' CPUs go idle, and are called nevertheless.
        let rounds = if own.index() < 4 { ROUNDS } else { 0 };
        for round in 0..rounds {
            let here = AtomicUsize::new(0);
            let function = || {
                assert_eq!(Hosted::context(), Context::HardIrq);
                ran[Hosted::current_cpu().index()].fetch_add(1, Ordering::Relaxed);
                // Plain: seen by the caller because the call is over.
                here.fetch_add(1, Ordering::Relaxed);
            };
            if round % 3 == 0 {
                let off = IrqsOff::<Hosted>::disable();
                Hosted::call(CpuMask::ALL, &function);
                drop(off);
            } else {
                Hosted::call(CpuMask::ALL, &function);
            }
            assert_eq!(here.into_inner(), CPUS);
            assert_eq!(Hosted::current_cpu(), own);
            assert!(Hosted::may_sleep());
        }
    });
    for count in ran {
        assert_eq!(count.into_inner(), 4 * ROUNDS);
    }
}

#[test]
fn a_panic_in_a_call_is_passed_on() {
    let machine = Machine::builder().cpus(2).build();
    machine.run(|| {
        let result = catch_unwind(AssertUnwindSafe(|| {
            Hosted::call(CpuMask::only(cpu(1)), &|| panic!("planted"));
        }));
        assert!(result.is_err());
        Hosted::call(CpuMask::ALL, &|| {});
    });
}

/// Deferred work, queued by threads, interrupts and NMIs of all CPUs.
#[test]
fn deferred_work_is_run() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    static QUEUED: AtomicUsize = AtomicUsize::new(0);
    fn work(_: &'static Deferred<()>) {
        assert_eq!(Hosted::context(), Context::HardIrq);
        RUNS.fetch_add(1, Ordering::Relaxed);
    }
    static WORK: [Deferred<()>; 3] = [const { Deferred::new((), work) }; 3];
    fn queue(which: usize) {
        if WORK[which].queue::<Hosted>() {
            QUEUED.fetch_add(1, Ordering::Relaxed);
        }
    }
    let machine = Machine::builder().cpus(4).seed(13).build();
    let _irq = machine.on_interrupt(16, || queue(1));
    let _nmi = machine.on_nmi(16, || queue(2));
    machine.run_on_all(|_| {
        for round in 0..2_000 {
            if round % 4 == 0 {
                queue(0);
            }
            // Interrupts off: it waits.
            let off = IrqsOff::<Hosted>::disable();
            queue(0);
            drop(off);
            if round % 100 == 0 {
                WORK[0].sync::<Hosted>();
            }
        }
    });
    machine.run(|| {
        for work in &WORK {
            work.sync::<Hosted>();
        }
    });
    let (runs, queued) = (RUNS.load(Ordering::Relaxed), QUEUED.load(Ordering::Relaxed));
    assert!(runs > 3_000, "{runs}");
    // The last `run` may have been interrupted to queue more after its `sync`.
    assert!(runs <= queued && queued - runs <= 3, "{runs} of {queued}");
}

#[test]
fn percpu_memory_is_apart_zeroed_and_given_back() {
    let machine = Machine::builder()
        .cpus(2)
        .possible(3)
        .percpu_bytes(1 << 16)
        .build();
    machine.run(|| {
        let layouts = [(1, 1), (24, 8), (64, 64), (4096, 4096)];
        for round in 0..50 {
            let pieces: Vec<_> = layouts
                .iter()
                .map(|&(size, align)| {
                    let layout = Layout::from_size_align(size, align).unwrap();
                    (Hosted::percpu_alloc(layout).expect("there is room"), layout)
                })
                .collect();
            for (number, (addr, layout)) in pieces.iter().enumerate() {
                for cpu in Hosted::possible_cpus().iter() {
                    let memory = Hosted::percpu_on(*addr, cpu);
                    assert_eq!(memory.addr().get() % layout.align(), 0);
                    for byte in 0..layout.size() {
                        // SAFETY: within the piece, which this thread alone uses.
                        unsafe {
                            assert_eq!(memory.add(byte).read(), 0);
                            memory.add(byte).write(number as u8 + 1);
                        }
                    }
                }
            }
            for (number, (addr, layout)) in pieces.into_iter().enumerate() {
                for cpu in Hosted::possible_cpus().iter() {
                    let last = Hosted::percpu_on(addr, cpu).as_ptr();
                    // SAFETY: as above.
                    let byte = unsafe { last.add(layout.size() - 1).read() };
                    assert_eq!(byte, number as u8 + 1, "round {round}");
                }
                // SAFETY: allocated so; not used any more.
                unsafe { Hosted::percpu_free(addr, layout) };
            }
        }
        let large = Layout::from_size_align(1 << 16, 8).unwrap();
        assert_eq!(Hosted::percpu_alloc(large), None);
    });
}

#[test]
#[should_panic(expected = "1 pieces of per-CPU memory (8 bytes) were not freed")]
fn a_leak_is_noticed() {
    let machine = Machine::builder().build();
    machine.run(|| Hosted::percpu_alloc(Layout::new::<u64>()));
}

/// A counter without guards, added to by threads that move and by interrupts, is exact.
#[test]
fn counters_are_exact() {
    let machine = Machine::builder().cpus(4).seed(14).build();
    let irqs = Arc::new(AtomicUsize::new(0));
    machine.run(|| {
        let counter = Arc::new(Counter::<Hosted>::try_new().unwrap());
        let (from_irq, counted) = (Arc::clone(&counter), Arc::clone(&irqs));
        let injection = machine.on_interrupt(4, move || {
            from_irq.add(1);
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let counter = Arc::clone(&counter);
                let spawn = platform::Spawn {
                    name: "adder",
                    cpu: None,
                    priority: platform::Priority::Normal,
                };
                machine.spawn(spawn, move || {
                    for _ in 0..1_000 {
                        counter.add(1);
                        Hosted::mark(Mark::Step);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join());
        drop(injection);
        let irqs = irqs.load(Ordering::Relaxed) as u64;
        assert!(irqs > 500);
        assert_eq!(counter.sum(), 8_000 + irqs);
    });
}

/// Locks between threads and interrupts.
#[test]
fn locks_exclude() {
    let machine = Machine::builder().cpus(4).seed(15).build();
    let plain = SpinLock::<usize, Hosted, Plain>::new(0);
    let irq = Arc::new(IrqSpinLock::<usize, Hosted, Irq>::new(0));
    let (in_irq, irqs) = (Arc::clone(&irq), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&irqs);
    let injection = machine.on_interrupt(8, move || {
        *in_irq.lock() += 1;
        counted.fetch_add(1, Ordering::Relaxed);
    });
    machine.run_on_all(|_| {
        for _ in 0..2_000 {
            let mut outer = plain.lock();
            *irq.lock_under(&outer) += 1;
            *outer += 1;
        }
    });
    drop(injection);
    assert_eq!(plain.into_inner(), 8_000);
    let irqs = irqs.load(Ordering::Relaxed);
    assert!(irqs > 100);
    machine.run(|| assert_eq!(*irq.lock(), 8_000 + irqs));
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "locks are checked in debug builds")]
fn the_lock_checker_reports() {
    let machine = Machine::builder().build();
    assert!(machine.take_reports().is_empty());
    machine.run(|| {
        let plain = SpinLock::<(), Hosted, Plain>::new(());
        let irq = IrqSpinLock::<(), Hosted, Irq>::new(());
        let outer = irq.lock();
        drop(plain.lock());
        drop(outer);
    });
    let reports = machine.take_reports();
    assert_eq!(reports.len(), 1, "{reports:#?}");
    assert!(reports[0].contains("plain") && reports[0].contains("irq"));
}
