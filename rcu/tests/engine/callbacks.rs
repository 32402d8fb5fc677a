//! Callbacks and barriers: all run, once, in order, and a barrier waits for all before it.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::*},
    },
};

use platform::{
    IrqsOff, MAX_CPUS, Mark, Platform, Priority,
    hosted::{Hosted, JoinHandle},
};
use rcu::{
    Head, Rcu,
    hosted::{Engine, offline, online},
};

use crate::world::{Random, Shape, assert_all_counted, cpu, pause, rounds, spawn};

/// By CPU: how many callbacks were queued there, and how many of those have run.
struct Order {
    queued: [AtomicUsize; MAX_CPUS],
    ran: [AtomicUsize; MAX_CPUS],
}

impl Order {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            queued: [const { AtomicUsize::new(0) }; MAX_CPUS],
            ran: [const { AtomicUsize::new(0) }; MAX_CPUS],
        })
    }

    /// Queues one on the own CPU. Any context but NMI.
    fn call(self: &Arc<Self>, rcu: &Rcu<Hosted>) {
        // Nothing comes in between the number and the queue.
        let here = IrqsOff::<Hosted>::disable();
        let cpu = here.cpu().index();
        let number = self.queued[cpu].load(Relaxed);
        self.queued[cpu].store(number + 1, Relaxed);
        let callback = Box::new(Callback {
            head: Head::new(),
            order: Arc::clone(self),
            cpu,
            number,
        });
        let head = NonNull::from(Box::leak(callback)).cast();
        // SAFETY: the head of a leaked object.
        unsafe { rcu.call(head, Callback::run) };
    }

    fn assert_all_ran(&self) {
        let count = |of: &[AtomicUsize; MAX_CPUS]| of.each_ref().map(|count| count.load(Acquire));
        assert_eq!(count(&self.ran), count(&self.queued));
    }
}

#[repr(C)]
struct Callback {
    head: Head,
    order: Arc<Order>,
    cpu: usize,
    number: usize,
}

impl Callback {
    /// # Safety
    ///
    /// The head of a leaked callback.
    unsafe fn run(head: NonNull<Head>) {
        // SAFETY: as the caller promises.
        let this = unsafe { Box::from_raw(head.cast::<Self>().as_ptr()) };
        assert!(!this.head.is_queued());
        // A second run, or another order, is another number.
        let ran = this.order.ran[this.cpu].fetch_add(1, Release);
        assert_eq!(this.number, ran, "of cpu{}", this.cpu);
        Hosted::mark(Mark::Step);
    }
}

#[test]
fn callbacks_run_once_and_in_order() {
    for (seed, shape) in (200..).zip(Shape::all()) {
        let machine = shape.machine(seed);
        machine.run(|| {
            let engine = Engine::start(&machine, shape.config());
            let order = Order::new();
            let (in_irq, rcu) = (Arc::clone(&order), Arc::clone(&engine));
            let injected = machine.on_interrupt(50, move || in_irq.call(&rcu));
            let threads: Vec<_> = (0..2 * shape.cpus)
                .map(|index| {
                    let (order, rcu) = (Arc::clone(&order), Arc::clone(&engine));
                    let place = Some(cpu(index % shape.cpus));
                    machine.spawn(spawn(place, Priority::Normal), move || {
                        for turn in 0..rounds(20_000, 150) {
                            // Floods, and pauses in which all of it runs.
                            if turn % 60 < 50 {
                                order.call(&rcu);
                            } else {
                                Hosted::park_until(Hosted::now_ns() + 20_000);
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(JoinHandle::join);
            drop(injected);
            engine.barrier();
            order.assert_all_ran();
            assert_all_counted(&engine);
        });
    }
}

/// What was queued is run when the engine stops, with nobody who waits for it.
#[test]
fn the_end_runs_all_callbacks() {
    let shape = Shape {
        cpus: 4,
        fanout: 2,
        preemptible: false,
    };
    let machine = shape.machine(3);
    let order = Order::new();
    machine.run(|| {
        let engine = Engine::start(&machine, shape.config());
        let calls: Vec<_> = (0..shape.cpus)
            .map(|index| {
                let (order, rcu) = (Arc::clone(&order), Arc::clone(&engine));
                machine.spawn_on(cpu(index), move || (0..100).for_each(|_| order.call(&rcu)))
            })
            .collect();
        calls.into_iter().for_each(JoinHandle::join);
    });
    order.assert_all_ran();
    assert_eq!(order.queued[3].load(Relaxed), 100);
}

/// Threads that queue somewhere, and others that know of it, wait for barriers while an
/// interrupt floods the engine with callbacks.
#[test]
fn a_barrier_waits_for_all_that_were_queued_before_it() {
    /// Queued by one thread, and run, so far.
    #[derive(Default)]
    struct Side {
        queued: AtomicUsize,
        ran: AtomicUsize,
    }
    #[repr(C)]
    struct Counted {
        head: Head,
        side: Arc<Side>,
    }
    unsafe fn count(head: NonNull<Head>) {
        // SAFETY: the head of a leaked object.
        let this = unsafe { Box::from_raw(head.cast::<Counted>().as_ptr()) };
        Hosted::mark(Mark::Step);
        this.side.ran.fetch_add(1, Relaxed);
    }
    fn queue(side: &Arc<Side>, rcu: &Rcu<Hosted>) {
        let object = Box::new(Counted {
            head: Head::new(),
            side: Arc::clone(side),
        });
        // SAFETY: the head of a leaked object.
        unsafe { rcu.call(NonNull::from(Box::leak(object)).cast(), count) };
        // Release: who sees the number knows of the callbacks.
        side.queued.fetch_add(1, Release);
    }

    let mut shared = 0;
    for (seed, shape) in (300..).zip(Shape::all()) {
        let machine = shape.machine(seed);
        machine.run(|| {
            let engine = Engine::start(&machine, shape.config());
            let noise = Arc::new(Side::default());
            let (in_irq, rcu) = (Arc::clone(&noise), Arc::clone(&engine));
            let injected = machine.on_interrupt(40, move || queue(&in_irq, &rcu));
            let sides: Arc<[Arc<Side>; 3]> = Default::default();
            let random = Arc::new(Random::new(seed));
            let threads: Vec<_> = (0..6)
                .map(|index| {
                    let (rcu, sides) = (Arc::clone(&engine), Arc::clone(&sides));
                    let random = Arc::clone(&random);
                    machine.spawn(spawn(None, Priority::Normal), move || {
                        for _ in 0..rounds(1_000, 12) {
                            // Half of them queue, and all wait for whatever they know of.
                            let own = &sides[index % 3];
                            for _ in 0..random.below(3) * (1 - index / 3) {
                                queue(own, &rcu);
                                Hosted::mark(Mark::Step);
                            }
                            let known: [usize; 3] =
                                core::array::from_fn(|side| sides[side].queued.load(Acquire));
                            rcu.barrier();
                            for (known, side) in known.iter().zip(sides.iter()) {
                                let ran = side.ran.load(Relaxed);
                                assert!(ran >= *known, "of {known} callbacks {ran} have run");
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(JoinHandle::join);
            assert!(noise.queued.load(Relaxed) > 10);
            drop(injected);
            let arrow = |name| engine.arrows().find(|arrow| arrow.0 == name).unwrap().1;
            shared += arrow("barrier.shared");
        });
    }
    assert!(shared > 20, "{shared} barriers were shared");
}

/// A CPU goes with callbacks that wait: another one runs them, and a barrier waits for them,
/// while it is away.
#[test]
fn callbacks_of_a_cpu_that_goes_are_run_elsewhere() {
    for preemptible in [false, true] {
        let shape = Shape {
            cpus: 3,
            fanout: 2,
            preemptible,
        };
        let machine = shape.machine(10);
        machine.run(|| {
            let engine = Engine::start(&machine, shape.config());
            let order = Order::new();
            for _ in 0..10 {
                // In a section until the CPU has gone.
                let state = Arc::new(AtomicUsize::new(0));
                let there = Arc::clone(&state);
                let reader = machine.spawn_on(cpu(2), move || {
                    let _section = rcu::hosted::read();
                    there.store(1, Release);
                    while there.load(Acquire) == 1 {
                        Hosted::relax();
                    }
                });
                while state.load(Acquire) == 0 {
                    pause();
                }
                let (queued, rcu) = (Arc::clone(&order), Arc::clone(&engine));
                let calls = machine.spawn_on(cpu(1), move || {
                    (0..5).for_each(|_| queued.call(&rcu));
                });
                calls.join();
                offline(&engine, cpu(1));
                let ran = || order.ran[1].load(Acquire);
                assert_eq!(ran() + 5, order.queued[1].load(Relaxed));
                state.store(2, Release);
                engine.barrier();
                assert_eq!(ran(), order.queued[1].load(Relaxed));
                online(&engine, cpu(1));
                reader.join();
            }
            let adopted = engine.arrows().find(|arrow| arrow.0 == "cb.adopt");
            assert_eq!(adopted.unwrap().1, 10);
        });
    }
}

/// A flood does not hold up a barrier, and what is queued after it need not have run.
#[test]
fn a_barrier_does_not_wait_for_later_callbacks() {
    let shape = Shape {
        cpus: 2,
        fanout: 2,
        preemptible: false,
    };
    let machine = shape.machine(9);
    machine.run(|| {
        let engine = Engine::start(&machine, shape.config());
        let (order, stop) = (Order::new(), Arc::new(AtomicBool::new(false)));
        let (flooding, until, rcu) = (Arc::clone(&order), Arc::clone(&stop), Arc::clone(&engine));
        let flood = machine.spawn_on(cpu(1), move || {
            while !until.load(Relaxed) {
                flooding.call(&rcu);
                Hosted::mark(Mark::Step);
            }
        });
        for _ in 0..20 {
            engine.barrier();
        }
        stop.store(true, Relaxed);
        flood.join();
        engine.barrier();
        order.assert_all_ran();
    });
}

/// A head that is queued already is not queued again, and somebody says so.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "heads are checked in debug builds")]
fn a_head_that_is_queued_twice_is_reported() {
    static RAN: AtomicUsize = AtomicUsize::new(0);
    unsafe fn count(_: NonNull<Head>) {
        RAN.fetch_add(1, Relaxed);
    }
    let shape = Shape {
        cpus: 1,
        fanout: 2,
        preemptible: false,
    };
    let machine = shape.machine(1);
    machine.take_reports();
    machine.run(|| {
        let engine = Engine::start(&machine, shape.config());
        let head = NonNull::from(Box::leak(Box::new(Head::new())));
        let section = rcu::hosted::read();
        for _ in 0..3 {
            // SAFETY: for ever there; that it is queued is what is to be found.
            unsafe { engine.call(head, count) };
        }
        drop(section);
        engine.barrier();
        assert_eq!(RAN.load(Relaxed), 1);
        // SAFETY: it was run, so it is its own again.
        unsafe { engine.call(head, count) };
        engine.barrier();
        assert_eq!(RAN.load(Relaxed), 2);
        // SAFETY: leaked above, and run.
        drop(unsafe { Box::from_raw(head.as_ptr()) });
    });
    let reports = machine.take_reports();
    assert_eq!(reports.len(), 2, "{reports:#?}");
    assert!(reports[0].contains("is queued already"), "{}", reports[0]);
}

/// An idle machine with one callback: its grace period begins at once, and it is run without
/// anybody who waits, or a tick.
#[test]
fn a_lone_callback_is_run() {
    let shape = Shape {
        cpus: 2,
        fanout: 2,
        preemptible: false,
    };
    let machine = shape.machine(4);
    machine.run(|| {
        let engine = Engine::start(&machine, shape.config());
        let order = Order::new();
        for turn in 1..=30 {
            let (queued, rcu) = (Arc::clone(&order), Arc::clone(&engine));
            machine
                .spawn_on(cpu(turn % 2), move || queued.call(&rcu))
                .join();
            let ran = || order.ran.iter().map(|ran| ran.load(Relaxed)).sum::<usize>();
            while ran() < turn {
                Hosted::park_until(Hosted::now_ns() + 50_000);
            }
        }
    });
}
