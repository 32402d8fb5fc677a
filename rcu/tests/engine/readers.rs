//! Nobody reads what was reclaimed: readers of all kinds, updaters of all kinds, at once.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use platform::{
    Platform, Priority,
    hosted::{Hosted, JoinHandle},
};
use rcu::{
    Config,
    hosted::{Engine, offline, online},
};

use crate::world::{Retire, Shape, World, assert_all_counted, cpu, rounds, spawn};

/// A run of it.
pub struct Torture {
    pub shape: Shape,
    pub seed: u64,
    /// How often each of two updaters does its part.
    pub updates: usize,
    pub config: Config,
    /// Switched on, to be found.
    #[cfg(debug_assertions)]
    pub faults: rcu::Faults,
    pub limit: Duration,
}

impl Torture {
    fn new(shape: Shape, seed: u64, updates: usize) -> Self {
        Self {
            shape,
            seed,
            updates,
            config: shape.config(),
            #[cfg(debug_assertions)]
            faults: rcu::Faults::NONE,
            limit: Duration::from_secs(240),
        }
    }

    pub fn run(&self) -> Arc<World> {
        let Self {
            shape,
            seed,
            updates,
            ..
        } = *self;
        let machine = shape.machine_that_ends(seed, self.limit);
        machine.run(|| {
            let engine = Engine::start(&machine, self.config.clone());
            #[cfg(debug_assertions)]
            engine.set_faults(self.faults);
            let world = World::new(&engine, seed);
            let (in_irq, in_nmi) = (Arc::clone(&world), Arc::clone(&world));
            let noise = (
                machine.on_interrupt(24, move || in_irq.read(2)),
                machine.on_nmi(40, move || in_nmi.read(1)),
            );
            let mut readers = Vec::new();
            for index in 0..=shape.cpus {
                let world = Arc::clone(&world);
                // One on each CPU, and one anywhere. Not of low priority: a section that is
                // switched away would never end while others poll.
                let place = (index < shape.cpus).then(|| cpu(index));
                readers.push(machine.spawn(spawn(place, Priority::Normal), move || {
                    while !world.stop.load(Relaxed) {
                        // Most are short.
                        let long = 60 * usize::from(world.random.below(16) == 0);
                        world.read(long + world.random.below(8));
                        if world.random.below(4) == 0 {
                            let pause = 100_000 * world.random.below(2) as u64;
                            Hosted::park_until(Hosted::now_ns() + pause);
                        }
                    }
                }));
            }
            if shape.cpus > 1 {
                let (world, rcu) = (Arc::clone(&world), Arc::clone(&engine));
                readers.push(machine.spawn(spawn(None, Priority::Normal), move || {
                    while !world.stop.load(Relaxed) {
                        let comes_and_goes = cpu(1 + world.random.below(shape.cpus - 1));
                        offline(&rcu, comes_and_goes);
                        world.update(Retire::Call);
                        let pause = 20_000 * world.random.below(10) as u64;
                        Hosted::park_until(Hosted::now_ns() + pause);
                        online(&rcu, comes_and_goes);
                        world.away.fetch_add(1, Relaxed);
                    }
                }));
            }
            let updaters: Vec<_> = (0..2)
                .map(|_| {
                    let world = Arc::clone(&world);
                    machine.spawn(spawn(None, Priority::Normal), move || {
                        for _ in 0..updates {
                            let how = Retire::ALL[world.random.below(Retire::ALL.len())];
                            world.update(how);
                        }
                    })
                })
                .collect();
            updaters.into_iter().for_each(JoinHandle::join);
            world.stop.store(true, Relaxed);
            readers.into_iter().for_each(JoinHandle::join);
            drop(noise);
            // Callbacks that queue themselves again.
            (0..4).for_each(|_| engine.barrier());
            world.assert_all_free();
            assert_all_counted(&engine);
            world
        })
    }
}

#[test]
fn nobody_reads_what_was_reclaimed() {
    let mut found = [0; 2];
    let mut away = 0;
    let mut retired = [0; Retire::ALL.len()];
    for (seed, shape) in (100..).zip(Shape::all()) {
        println!("{shape:?}");
        let world = Torture::new(shape, seed, rounds(2_500, 60)).run();
        away += world.away.load(Relaxed);
        for (sum, count) in found.iter_mut().zip(&world.found) {
            *sum += count.load(Relaxed);
        }
        for (sum, count) in retired.iter_mut().zip(&world.retired) {
            *sum += count.load(Relaxed);
        }
    }
    assert!(away > 100, "CPUs went {away} times");
    assert!(found.iter().all(|count| *count > 50), "{found:?}");
    assert!(retired.iter().all(|count| *count > 50), "{retired:?}");
}
