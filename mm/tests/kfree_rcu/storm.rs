//! Never early, never lost: readers that look at objects for the whole of their sections, and writers that take these out and
//! give them to `kfree_rcu` on all roads, with barriers, ends of caches, interrupts, failing allocations, and CPUs that go.

use std::{
    ptr::{NonNull, null_mut},
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
};

use mm::{fault::Knobs, hosted::Memory};
use platform::{
    CpuId, Platform, Priority, Spawn,
    hosted::{Hosted, Machine},
};

use crate::{
    common::{destroy, walk},
    field::{Field, How, Random, THREADS},
    world::{MIB, World, rounds},
};

/// How a storm is.
#[derive(Clone, Copy)]
struct Storm {
    seed: u64,
    preemptible: bool,
    /// CPUs go and come back; threads are then bound to none.
    hotplug: bool,
    /// Of a hundred allocations of pages so many fail.
    failing: u8,
}

fn storm(storm: Storm) {
    let machine = Machine::builder().cpus(4).nodes(2).seed(storm.seed);
    let memory = Memory::builder().node(48 * MIB).node(48 * MIB);
    let world = World::new(machine, memory);
    if storm.preemptible {
        rcu::hosted::make_preemptible(&world.machine);
    }
    world.run_with_rcu(|slabs, engine| {
        let field: &'static Field = Box::leak(Box::new(Field::new(slabs)));
        slabs.kvfree_rcu().set_soft_limit(20_000);
        fail(&world, storm.failing);
        let handler = |how| {
            move || {
                let turn = field.turns.fetch_add(1, Relaxed);
                let mut random = Random(storm.seed << 32 ^ turn);
                field.turn(&mut random, how);
                field.read(&mut random);
            }
        };
        let injected = (
            world.machine.on_interrupt(60, handler(How::Interrupt)),
            world.machine.on_nmi(90, handler(How::Nmi)),
        );
        let running = Arc::new(AtomicUsize::new(THREADS));
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let running = Arc::clone(&running);
                let spawn = Spawn {
                    name: "storm",
                    cpu: CpuId::from_index(thread).filter(|_| !storm.hotplug),
                    priority: Priority::Normal,
                };
                world.machine.spawn(spawn, move || {
                    let mut random = Random(storm.seed ^ (thread as u64) << 40);
                    for _ in 0..rounds(20_000, 500) {
                        field.act(&mut random, thread);
                    }
                    running.fetch_sub(1, Release);
                })
            })
            .collect();
        while storm.hotplug && running.load(Acquire) > 0 {
            let number = 1 + field.turns.fetch_add(1, Relaxed) as usize % 3;
            let cpu = CpuId::from_index(number).unwrap();
            rcu::hosted::offline(engine, cpu);
            // SAFETY: it does not run until it is brought back below.
            unsafe { slabs.flush_offline(cpu) };
            Hosted::yield_now();
            rcu::hosted::online(engine, cpu);
        }
        threads.into_iter().for_each(|thread| thread.join());
        drop(injected);
        fail(&world, 0);
        let mut random = Random(storm.seed);
        for slot in &field.slots {
            if let Some(was) = NonNull::new(slot.swap(null_mut(), AcqRel)) {
                field.free(was, &mut random, How::Thread);
            }
        }
        slabs.kvfree_rcu_barrier();
        assert_eq!(field.shared.ended(), field.queued.load(Relaxed));
        assert_eq!(slabs.kvfree_rcu().bytes(), 0);
        walk(slabs, engine);
        for cache in field.caches {
            destroy(slabs, cache);
        }
    });
}

/// So many of a hundred allocations of pages fail.
fn fail(world: &World, percent: u8) {
    world.mm().debug().faults(|page| {
        page.fail_nth(0);
        page.attr.configure(&Knobs {
            probability: percent.into(),
            times: -1,
            verbose: 0,
            ..Knobs::OFF
        });
    });
}

fn storms(hotplug: bool, failing: u8) {
    for seed in 0..rounds(20, 2) {
        storm(Storm {
            seed: seed + 1,
            preemptible: seed % 2 == 1,
            hotplug,
            failing,
        });
    }
}

#[test]
fn with_all_that_is_needed() {
    storms(false, 0);
}

#[test]
fn with_memory_that_fails() {
    storms(false, 30);
}

#[test]
fn with_cpus_that_go() {
    storms(true, 10);
}
