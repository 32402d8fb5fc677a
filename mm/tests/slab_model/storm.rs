//! Everything at once on several CPUs and nodes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mm::hosted::Memory;
use platform::{
    CpuId, Priority, Spawn,
    hosted::{Builder, Hosted, Machine},
};

use super::{
    actor::{Actor, Shared},
    world::{MIB, Random, World, rounds, run},
};

/// How a storm is.
#[derive(Clone, Copy)]
pub struct Storm {
    pub seed: u64,
    /// Operations of all threads.
    pub ops: u64,
    /// CPUs go and come back; threads are then bound to none.
    pub hotplug: bool,
}

/// Takes CPUs away and brings them back until all threads have ended.
fn move_cpus(world: &World<'_>, shared: &Shared, random: &mut Random, running: &AtomicUsize) {
    let cpus = <Hosted as platform::Platform>::possible_cpus();
    // Acquire: what they did is seen.
    while running.load(Ordering::Acquire) > 0 {
        let others: Vec<CpuId> = cpus.without(CpuId::BOOT).iter().collect();
        let cpu = *random.of(&others);
        rcu::hosted::offline(&world.rcu, cpu);
        // SAFETY: it is offline until this has returned.
        unsafe { shared.slabs.flush_offline(cpu) };
        <Hosted as platform::Platform>::yield_now();
        rcu::hosted::online(&world.rcu, cpu);
    }
}

/// Turns switches, as the seed says: objects are zeroed; allocations fail; freed objects wait in quarantine.
fn switch(world: &World<'_>, seed: u64, on: bool) {
    let zero = on && seed % 4 == 1;
    world.slabs.set_zero_on_alloc(zero);
    world.slabs.set_zero_on_free(zero);
    let quarantine = if on && seed % 3 == 1 { 8_000 } else { 0 };
    world.slabs.set_quarantine(quarantine);
    let percent = if on && seed % 4 == 2 { "3" } else { "0" };
    world.slabs.faults(|faults| {
        for (knob, value) in [
            ("probability", percent),
            ("times", "-1"),
            ("ignore-gfp-wait", "N"),
            ("verbose", "0"),
        ] {
            faults.set(knob, value).expect("a knob");
        }
    });
}

/// Threads do operations, and leave to others what they hold; at the end all is freed.
fn storm(machine: Builder, memory: mm::hosted::Builder, storm: Storm) {
    run(machine.seed(storm.seed), memory, |world| {
        storm_in(world, storm)
    });
}

/// A storm in a world that is there.
pub fn storm_in(world: &World<'_>, storm: Storm) {
    switch(world, storm.seed, true);
    let cpus = <Hosted as platform::Platform>::online_cpus();
    let threads = cpus.count() + 1;
    let shared = Arc::new(Shared::new(world, 5, storm.seed));
    let handler = |kind| {
        let shared = Arc::clone(&shared);
        move || shared.interrupt(kind)
    };
    let injected = (
        world.machine.on_interrupt(40, handler(0)),
        world.machine.on_nmi(60, handler(1)),
    );
    let running = Arc::new(AtomicUsize::new(threads));
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let (shared, running) = (Arc::clone(&shared), Arc::clone(&running));
            let spawn = Spawn {
                name: "storm",
                cpu: CpuId::from_index(thread).filter(|cpu| !storm.hotplug && cpus.contains(*cpu)),
                priority: Priority::Normal,
            };
            let ops = storm.ops / threads as u64;
            let seed = storm.seed ^ (thread as u64) << 32;
            world.machine.spawn(spawn, move || {
                let mut actor = Actor::new(&shared, seed);
                (0..ops).for_each(|_| actor.step());
                actor.leave();
                drop(shared);
                running.fetch_sub(1, Ordering::Release);
            })
        })
        .collect();
    if storm.hotplug {
        move_cpus(world, &shared, &mut Random(storm.seed), &running);
    }
    workers.into_iter().for_each(|worker| worker.join());
    drop(injected);
    switch(world, storm.seed, false);
    let shared = Arc::into_inner(shared).expect("nobody else has it");
    shared.end();
}

#[test]
fn one_cpu_with_little_memory() {
    for seed in 0..rounds(40, 2) {
        let memory = Memory::builder().node(3 * MIB);
        let ops = 4_000;
        storm(
            Machine::builder(),
            memory,
            Storm {
                seed,
                ops,
                hotplug: false,
            },
        );
    }
}

/// As many CPUs and nodes as the seed says, some nodes without memory, some without CPUs.
#[test]
fn any_cpus_and_nodes() {
    for seed in 0..rounds(200, 4) {
        let mut random = Random(seed);
        let cpus = 1 + random.below(4) as usize;
        let nodes = 1 + random.below(4) as usize;
        let mut memory = Memory::builder();
        let mut any = false;
        for node in 0..nodes {
            let number = platform::NodeId::from_index(node).unwrap();
            // One at least has memory.
            if !random.one_in(4) || (!any && node + 1 == nodes) {
                memory = memory.piece(number, (8 + random.below(16)) * MIB);
                any = true;
            }
        }
        let machine = Machine::builder().cpus(cpus).nodes(nodes);
        let storm_of = Storm {
            seed,
            ops: 4_000,
            hotplug: false,
        };
        storm(machine, memory, storm_of);
    }
}

#[test]
fn cpus_that_go() {
    for seed in 0..rounds(100, 3) {
        let machine = Machine::builder().cpus(4).nodes(2);
        let memory = Memory::builder().node(24 * MIB).node(24 * MIB);
        let storm_of = Storm {
            seed,
            ops: 3_000,
            hotplug: true,
        };
        storm(machine, memory, storm_of);
    }
}
