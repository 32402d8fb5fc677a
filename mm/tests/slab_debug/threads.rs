//! Several CPUs at once, with validation, shrinking and faults found meanwhile.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use mm::{
    hosted::{Memory, Reports},
    report::Kind,
    slab::{Flags, Spec},
};
use platform::hosted::Machine;

use crate::{
    flags::{P, U, Z, alloc, destroy, free, nothing_said, peek, poke},
    silent::Random,
    world::{World, rounds},
};

fn world() -> World {
    let machine = Machine::builder().cpus(4).nodes(2);
    World::new(machine, Memory::builder().node(32 << 20).node(32 << 20))
}

/// Validation and shrinking disturb nobody, and find nothing.
#[test]
fn validation_meanwhile() {
    for flags in [
        Flags::NO_MERGE,
        Flags::DEBUG,
        Flags::CONSISTENCY_CHECKS,
        U,
        Z,
        P,
    ] {
        let world = world();
        let cache = world.run(|slabs| {
            let spec = Spec::new("shared", 64).flags(flags);
            slabs.create(&spec).expect("a cache")
        });
        let rounds = rounds(20_000, 300);
        let done = AtomicUsize::new(0);
        world.machine.run_on_all(|cpu| {
            let mut random = Random(cpu.number().into());
            let mut held: Vec<(NonNull<u8>, u8)> = Vec::new();
            if cpu.number() == 0 {
                while done.load(Ordering::Relaxed) < 3 {
                    assert_eq!(cache.validate(), 0);
                    cache.shrink();
                }
                return;
            }
            for round in 0..rounds {
                if held.len() < 40 && random.below(2) == 0 {
                    let (object, byte) = (alloc(cache), round as u8);
                    (0..64).for_each(|at| poke(object, at, byte));
                    held.push((object, byte));
                } else if !held.is_empty() {
                    let index = random.below(held.len() as u64) as usize;
                    let (object, byte) = held.swap_remove(index);
                    assert!((0..64).all(|at| peek(object, at) == byte));
                    // SAFETY: this thread's.
                    unsafe {
                        match random.below(2) {
                            0 => cache.free(object),
                            _ => cache.free_nolock(object),
                        }
                    }
                }
            }
            held.into_iter().for_each(|(object, _)| free(cache, object));
            done.fetch_add(1, Ordering::Relaxed);
        });
        world.run(|_| {
            assert_eq!((cache.validate(), cache.faults_found()), (0, 0));
            destroy(cache);
            nothing_said();
        });
    }
}

/// While others go on, each planted fault is reported once, and nobody gets what was damaged.
#[test]
fn faults_meanwhile() {
    let world = world();
    let cache = world.run(|slabs| {
        let spec = Spec::new("shared", 64).flags(Flags::DEBUG);
        slabs.create(&spec).expect("a cache")
    });
    let planted = rounds(2_000, 60) as usize;
    let stop = AtomicBool::new(false);
    world.machine.run_on_all(|cpu| {
        if cpu.number() == 0 {
            for _ in 0..planted {
                let object = alloc(cache);
                poke(object, 64, 1);
                free(cache, object);
            }
            stop.store(true, Ordering::Relaxed);
            return;
        }
        let mut held = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            held.extend((0..10).map(|_| alloc(cache)));
            held.drain(..).for_each(|object| free(cache, object));
        }
    });
    world.run(|_| {
        let said = Reports::here().take();
        assert_eq!(said.len(), planted);
        assert!(said.iter().all(|said| said.kind == Kind::SlabRedZone));
        assert_eq!(cache.faults_found(), planted as u64);
        assert_eq!(cache.validate(), 0);
        destroy(cache);
    });
}
