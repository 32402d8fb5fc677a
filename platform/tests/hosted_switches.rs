//! What a hosted machine shows of its CPUs to RCU: changes of threads, idle CPUs, what
//! interrupts come upon.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use platform::hosted::{Hosted, JoinHandle, Machine};
use platform::{Context, CpuId, CpuMask, IrqsOff, Mark, Platform, Preempt, Priority, Spawn};

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

fn spawn(cpu: Option<CpuId>, priority: Priority) -> Spawn {
    Spawn {
        name: "spawned",
        cpu,
        priority,
    }
}

/// By CPU: which thread ran last, and which was said to leave since.
#[derive(Default)]
struct Seen {
    ran: [AtomicU32; 3],
    left: [AtomicU32; 3],
    told: AtomicUsize,
}

impl Seen {
    /// Somebody runs. Whether it is another thread than before.
    fn runs(&self) -> bool {
        let here = Preempt::<Hosted>::disable();
        let (index, own) = (here.cpu().index(), Hosted::current_thread().number());
        let last = self.ran[index].swap(own, Relaxed);
        let left = self.left[index].swap(0, Relaxed);
        let changed = last != own && last != 0;
        if changed {
            assert_eq!(left, last, "cpu{index} went from {last} to {own} unnoticed");
        }
        changed
    }

    fn note_switch(&self) {
        assert_eq!(Hosted::context(), Context::Task);
        assert!(!Hosted::irqs_enabled() && !Hosted::may_sleep());
        assert!(Hosted::idle_word(Hosted::current_cpu()).is_watching());
        let (index, own) = (
            Hosted::current_cpu().index(),
            Hosted::current_thread().number(),
        );
        // Others run here that do not say so: `main`, threads that begin.
        if self.ran[index].load(Relaxed) == own {
            self.left[index].store(own, Relaxed);
        }
        self.told.fetch_add(1, Relaxed);
        // Not a place where CPUs change hands.
        Hosted::mark(Mark::Step);
    }
}

/// Threads that yield, sleep, are preempted, move and end.
#[test]
fn every_change_of_threads_is_told() {
    for seed in 0..4 {
        let machine = Machine::builder().cpus(3).seed(seed).build();
        let seen = Arc::new(Seen::default());
        let told = Arc::clone(&seen);
        machine.on_switch(move || told.note_switch());
        let _noise = (machine.on_interrupt(9, || ()), machine.on_nmi(11, || ()));
        let changes = Arc::new(AtomicUsize::new(0));
        machine.run(|| {
            let threads: Vec<_> = (0..9)
                .map(|number| {
                    let (seen, changes) = (Arc::clone(&seen), Arc::clone(&changes));
                    let place = (number < 6).then(|| cpu(number % 3));
                    let priority = [Priority::Low, Priority::Normal, Priority::High];
                    let priority = priority[number as usize / 3];
                    machine.spawn(spawn(place, priority), move || {
                        for round in 0..300 {
                            if seen.runs() {
                                changes.fetch_add(1, Relaxed);
                            }
                            match round % 7 {
                                0 => Hosted::yield_now(),
                                1 => Hosted::park_until(Hosted::now_ns() + 1_000),
                                _ => Hosted::mark(Mark::Step),
                            }
                        }
                        seen.runs();
                    })
                })
                .collect();
            threads.into_iter().for_each(JoinHandle::join);
        });
        let (changes, told) = (changes.load(Relaxed), seen.told.load(Relaxed));
        assert!(changes > 100, "{changes} changes");
        assert!(told >= changes, "{told} of {changes}");
    }
}

#[test]
fn a_wanted_switch_is_told_once_and_where_it_may_be() {
    let machine = Machine::builder().cpus(2).build();
    let told = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&told);
    machine.on_switch(move || {
        counted.fetch_add(1, SeqCst);
    });
    machine.run(|| {
        let preempt = Preempt::<Hosted>::disable();
        Hosted::want_switch();
        Hosted::mark(Mark::Step);
        {
            let off = IrqsOff::<Hosted>::disable();
            drop(preempt);
            Hosted::mark(Mark::Step);
            assert_eq!(told.load(SeqCst), 0, "with interrupts off");
            drop(off);
        }
        assert_eq!(told.load(SeqCst), 1);
        Hosted::mark(Mark::Step);
        assert_eq!(told.load(SeqCst), 1, "wanted once");
        // From an interrupt, for what it came upon.
        Hosted::call(CpuMask::only(CpuId::BOOT), &Hosted::want_switch);
        assert_eq!(told.load(SeqCst), 2);
        // Of a CPU that sleeps: its next thread.
        Hosted::call(CpuMask::only(cpu(1)), &Hosted::want_switch);
        assert_eq!(told.load(SeqCst), 2);
        machine.spawn_on(cpu(1), || ()).join();
        assert!(told.load(SeqCst) > 2);
    });
}

/// What is freed once the words say that all readers have gone is read by nobody. The readers
/// are threads between sleeps and calls to CPUs that sleep.
#[test]
fn idle_words_are_even_only_while_nobody_runs() {
    const CPUS: u32 = 4;
    const ROUNDS: u32 = 3_000;
    const FREED: u32 = u32::MAX;

    struct World {
        /// Which object can be found.
        published: AtomicU32,
        objects: [AtomicU32; 2],
        stop: AtomicU32,
    }
    impl World {
        fn read(&self) {
            let _here = Preempt::<Hosted>::disable();
            let word = Hosted::idle_word(Hosted::current_cpu());
            assert!(word.is_watching());
            let found = self.published.load(SeqCst);
            for _ in 0..2 {
                let object = self.objects[found as usize % 2].load(Relaxed);
                assert_ne!(object, FREED, "read after it was freed");
                Hosted::mark(Mark::Step);
            }
            assert!(word.is_watching());
        }
    }

    let machine = Machine::builder().cpus(CPUS as usize).seed(21).build();
    let world = Arc::new(World {
        published: AtomicU32::new(0),
        objects: Default::default(),
        stop: AtomicU32::new(0),
    });
    let in_irq = Arc::clone(&world);
    let _irq = machine.on_interrupt(31, move || in_irq.read());
    let mut idle_found = 0;
    machine.run(|| {
        let readers: Vec<_> = (1..CPUS)
            .map(|number| {
                let world = Arc::clone(&world);
                machine.spawn_on(cpu(number), move || {
                    let mut turn = 0;
                    while world.stop.load(Relaxed) == 0 {
                        world.read();
                        Hosted::park_until(Hosted::now_ns() + turn % 4 * 40_000);
                        turn += 1;
                    }
                })
            })
            .collect();
        let caller = Arc::clone(&world);
        let caller = machine.spawn_on(cpu(1), move || {
            while caller.stop.load(Relaxed) == 0 {
                Hosted::call(CpuMask::ALL, &|| caller.read());
                Hosted::park_until(Hosted::now_ns() + 50_000);
            }
        });
        for round in 1..=ROUNDS {
            let old = &world.objects[(round as usize + 1) % 2];
            world.objects[round as usize % 2].store(round, Relaxed);
            world.published.store(round, SeqCst);
            for number in 1..CPUS {
                let word = Hosted::idle_word(cpu(number));
                let snapshot = word.snapshot();
                idle_found += u32::from(snapshot.in_eqs());
                while !word.passed_since(snapshot) {
                    Hosted::relax();
                }
            }
            // On this CPU only interrupts read, between points.
            old.store(FREED, Relaxed);
        }
        world.stop.store(1, Relaxed);
        caller.join();
        readers.into_iter().for_each(JoinHandle::join);
    });
    machine.run(|| {
        let watching = |number| Hosted::idle_word(cpu(number)).is_watching();
        assert_eq!([0, 1, 2, 3].map(watching), [true, false, false, false]);
    });
    assert!(idle_found > 50, "idle {idle_found} times");
}

/// What an interrupt came upon.
#[test]
fn interrupts_know_what_they_came_upon() {
    #[derive(Default)]
    struct Counts([[AtomicUsize; 2]; 5]);
    const TASK: usize = 0;
    const NO_PREEMPTION: usize = 1;
    const NO_INTERRUPTS: usize = 2;
    const INTERRUPT: usize = 3;
    const CALLING: usize = 4;

    let machine = Machine::builder().cpus(1).seed(5).build();
    let (state, counts) = (
        Arc::new(AtomicUsize::new(TASK)),
        Arc::new(Counts::default()),
    );
    let note = {
        let (state, counts) = (Arc::clone(&state), Arc::clone(&counts));
        move || {
            let quiescent = Hosted::interrupted_quiescent();
            counts.0[state.load(SeqCst)][usize::from(quiescent)].fetch_add(1, SeqCst);
        }
    };
    let (in_irq, states) = (note.clone(), Arc::clone(&state));
    let _irq = machine.on_interrupt(5, move || {
        in_irq();
        let was = states.swap(INTERRUPT, SeqCst);
        (0..4).for_each(|_| Hosted::mark(Mark::Step));
        states.store(was, SeqCst);
    });
    let _nmi = machine.on_nmi(7, note.clone());
    machine.run(|| {
        assert!(!Hosted::interrupted_quiescent(), "not in an interrupt");
        let marks = || (0..500).for_each(|_| Hosted::mark(Mark::Step));
        marks();
        {
            let here = Preempt::<Hosted>::disable();
            state.store(NO_PREEMPTION, SeqCst);
            marks();
            state.store(TASK, SeqCst);
            drop(here);
        }
        {
            // Not by a guard, which would turn preemption off, too.
            let was = Hosted::irq_save();
            state.store(NO_INTERRUPTS, SeqCst);
            marks();
            state.store(TASK, SeqCst);
            Hosted::irq_restore(was);
        }
    });
    drop((_irq, _nmi));
    machine.run(|| {
        state.store(CALLING, SeqCst);
        Hosted::call(CpuMask::only(CpuId::BOOT), &note);
    });
    let counts = counts
        .0
        .each_ref()
        .map(|of| of.each_ref().map(|n| n.load(SeqCst)));
    assert!(counts[TASK][1] > 50 && counts[TASK][0] == 0, "{counts:?}");
    for state in [NO_PREEMPTION, NO_INTERRUPTS, INTERRUPT] {
        assert!(counts[state][0] > 20 && counts[state][1] == 0, "{counts:?}");
    }
    assert_eq!(
        counts[CALLING],
        [1, 0],
        "who calls its own CPU is in the call"
    );
}

/// A call to an idle CPU comes upon an idle loop, whatever its caller was doing; one to a
/// thread that waits comes upon that.
#[test]
fn a_borrowed_cpu_was_idle() {
    let machine = Machine::builder().cpus(2).build();
    let look = || {
        assert_eq!(Hosted::context(), Context::HardIrq);
        assert_eq!(Hosted::current_cpu(), cpu(1));
        assert!(Hosted::interrupted_quiescent());
        assert!(Hosted::idle_word(cpu(1)).is_watching());
        assert!(!Hosted::irqs_enabled() && !Hosted::may_sleep());
    };
    machine.run(|| {
        let word = Hosted::idle_word(cpu(1));
        assert!(word.snapshot().in_eqs());
        let before = word.snapshot();
        Hosted::call(CpuMask::only(cpu(1)), &look);
        assert!(word.snapshot().in_eqs() && word.snapshot() != before);
        let off = IrqsOff::<Hosted>::disable();
        Hosted::call(CpuMask::only(cpu(1)), &look);
        drop(off);
        let state = Arc::new(AtomicU32::new(0));
        let there = Arc::clone(&state);
        let other = machine.spawn_on(cpu(1), move || {
            let here = Preempt::<Hosted>::disable();
            there.store(1, SeqCst);
            while there.load(SeqCst) == 1 {
                Hosted::relax();
            }
            drop(here);
        });
        while state.load(SeqCst) == 0 {
            Hosted::relax();
        }
        assert!(!word.snapshot().in_eqs());
        Hosted::call(CpuMask::only(cpu(1)), &|| {
            assert!(!Hosted::interrupted_quiescent());
        });
        state.store(2, SeqCst);
        other.join();
    });
}

/// Values belong to the thread, wherever it runs, and to who is interrupted.
#[test]
fn values_of_threads() {
    #[derive(Default)]
    struct Value(AtomicUsize);
    let machine = Machine::builder().cpus(2).seed(9).build();
    let own = || Hosted::thread_value::<Value>();
    let _irq = machine.on_interrupt(5, || {
        Hosted::thread_value::<Value>().0.fetch_add(1, Relaxed);
    });
    machine.run(|| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                machine.spawn(spawn(None, Priority::Normal), || {
                    let kept = Hosted::thread_value::<Value>();
                    (0..500).for_each(|_| Hosted::mark(Mark::Step));
                    assert!(Arc::ptr_eq(&kept, &Hosted::thread_value::<Value>()));
                    assert!(kept.0.load(Relaxed) > 20, "its interrupts");
                })
            })
            .collect();
        threads.into_iter().for_each(JoinHandle::join);
    });
    // The other CPU sleeps: whoever calls it does not stand for its thread.
    machine.run(|| {
        let mine = own();
        for _ in 0..3 {
            Hosted::call(CpuMask::only(cpu(1)), &|| {
                assert!(!Arc::ptr_eq(&mine, &own()));
                own().0.fetch_add(1_000_000, Relaxed);
            });
        }
        Hosted::call(CpuMask::only(CpuId::BOOT), &|| {
            assert!(Arc::ptr_eq(&mine, &own()));
        });
        Hosted::call(CpuMask::only(cpu(1)), &|| {
            assert_eq!(own().0.load(Relaxed), 3_000_000, "one idle thread");
        });
        assert!(mine.0.load(Relaxed) < 1_000_000);
    });
}
