//! Interrupts and NMIs in the middle of everything, that give objects to `kfree_rcu`.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use mm::{
    Gfp,
    hosted::Memory,
    kvfree_rcu::Head,
    slab::{Flags, Slabs},
};
use platform::{
    Platform,
    hosted::{Hosted, Machine},
};

use crate::{
    common::{
        Allocator, Cache, OF_SHEAF, Shared, count, cpu, create, destroy, free_rcu,
        free_rcu_at_once, make, spec, take, walk, world,
    },
    world::{MIB, World, rounds},
};

const QUIET: Gfp = Gfp::ATOMIC.union(Gfp::NOWARN);

/// Gives an object to `kfree_rcu` from any context.
fn free_rcu_nolock(slabs: &Slabs<Hosted>, object: NonNull<u8>) {
    // SAFETY: the caller's, and large enough.
    unsafe { slabs.kfree_rcu_nolock(object, object.cast::<Head>()) };
}

/// A thread's turn of a long test: objects of a cache, of all roads.
fn turn(slabs: &Allocator, caches: &[&'static Cache], shared: &'static Shared, round: u64) -> u64 {
    let cache = caches[round as usize % caches.len()];
    let number = 1 + round % 5;
    let mut queued = 0;
    for _ in 0..number {
        let Some(object) = cache.alloc(Gfp::KERNEL) else {
            continue;
        };
        make(object, shared);
        match round % 7 {
            6 => free_rcu_nolock(slabs, object),
            // SAFETY: the test's object.
            5 => unsafe { slabs.kfree_rcu_mightsleep(object) },
            _ => free_rcu(slabs, object),
        }
        queued += 1;
    }
    queued
}

/// Interrupts find the local lock of what they queue taken, and so do calls that are to close an open sheaf.
#[test]
pub fn interrupts_meet_the_local_lock() {
    let machine = Machine::builder().cpus(2).seed(3);
    let world = World::new(machine, Memory::builder().node(64 * MIB));
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let cache = create(slabs, "test");
        let queued: Arc<AtomicU64> = Arc::default();
        let counts = Arc::clone(&queued);
        let interrupt = world.machine.on_interrupt(5, move || {
            if let Some(object) = cache.alloc(QUIET) {
                free_rcu(slabs, make(object, shared));
                counts.fetch_add(1, Relaxed);
            }
        });
        let done: Arc<AtomicBool> = Arc::default();
        let (until, counts) = (Arc::clone(&done), Arc::clone(&queued));
        let other = world.machine.spawn_on(cpu(1), move || {
            let mut round = 0;
            while !until.load(Acquire) {
                counts.fetch_add(turn(slabs, &[cache], shared, round % 5), Relaxed);
                round += 1;
            }
        });
        let all = rounds(4_000, 400);
        let mut round = 0;
        while round < all
            || round < 100 * all
                && (count(slabs, "rcu.lock_taken") == 0 || count(slabs, "rcu.close_busy") == 0)
        {
            queued.fetch_add(turn(slabs, &[cache], shared, round % 5), Relaxed);
            if round % 4 == 0 {
                slabs.kvfree_rcu_barrier_on_cache(cache);
            }
            round += 1;
        }
        drop(interrupt);
        done.store(true, Release);
        other.join();
        slabs.kvfree_rcu_barrier();
        assert_eq!(shared.ended(), queued.load(Relaxed));
        for arrow in ["rcu.lock_taken", "rcu.close_busy"] {
            assert!(count(slabs, arrow) > 0, "{arrow}");
        }
        walk(slabs, engine);
        destroy(slabs, cache);
    });
}

/// What does not fit into the open sheaf is deferred, and queued by an interrupt soon after.
#[test]
pub fn without_a_lock_objects_are_queued_later() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let (cache, debug) = (
            create(slabs, "test"),
            slabs.create(&spec("debug").flags(Flags::POISON)).unwrap(),
        );
        // No sheaf is open.
        free_rcu_nolock(slabs, take(cache, 1, shared)[0]);
        assert_eq!(count(slabs, "rcu.defer"), 1);
        // Its own CPU takes it in; then there is one.
        crate::common::wait_until(|| count(slabs, "rcu.defer_run") == 1);
        assert_eq!(count(slabs, "rcu.open"), 1);
        let [one, two] = [take(cache, 1, shared), take(debug, 1, shared)];
        free_rcu_nolock(slabs, one[0]);
        free_rcu_nolock(slabs, two[0]);
        let large = slabs.kmalloc(20_000, Gfp::KERNEL).unwrap();
        free_rcu_nolock(slabs, large);
        slabs.kvfree_rcu_barrier();
        assert_eq!(count(slabs, "rcu.defer"), count(slabs, "rcu.defer_run"));
        assert_eq!(shared.ended(), 3);
        assert_eq!(slabs.kvfree_rcu().bytes(), 0);
        // Who ends a cache waits for them, and a barrier on it does.
        for round in 0..20 {
            let cache = create(slabs, "deferred");
            let ended = shared.ended();
            for object in take(cache, 3, shared) {
                free_rcu_nolock(slabs, object);
            }
            if round % 2 == 0 {
                slabs.kvfree_rcu_barrier_on_cache(cache);
                assert_eq!(shared.ended(), ended + 3);
            }
            destroy(slabs, cache);
            assert_eq!(shared.ended(), ended + 3);
        }
        walk(slabs, engine);
        destroy(slabs, cache);
        destroy(slabs, debug);
    });
}

/// NMIs at all points of all roads, barriers, drainers and ends of caches, which queue without a lock.
#[test]
fn nmis_queue_in_the_middle_of_everything() {
    let machine = Machine::builder().cpus(2).nodes(2).seed(11);
    let memory = Memory::builder().node(48 * MIB).node(48 * MIB);
    let world = World::new(machine, memory);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let caches = [
            create(slabs, "one"),
            slabs.create(&spec("two").sheaf_capacity(0)).unwrap(),
            slabs.create(&spec("three").flags(Flags::POISON)).unwrap(),
        ];
        let queued: Arc<AtomicU64> = Arc::default();
        let (counts, turns) = (Arc::clone(&queued), AtomicU64::new(0));
        let nmi = world.machine.on_nmi(15, move || {
            let cache = caches[turns.fetch_add(1, Relaxed) as usize % 3];
            if let Some(object) = cache.alloc_nolock(None) {
                free_rcu_nolock(slabs, make(object, shared));
                counts.fetch_add(1, Relaxed);
            }
        });
        let threads: Vec<_> = (0..2)
            .map(|number| {
                let counts = Arc::clone(&queued);
                world.machine.spawn_on(cpu(number), move || {
                    for round in 0..rounds(3_000, 60) {
                        counts.fetch_add(turn(slabs, &caches, shared, round), Relaxed);
                        match round % 50 {
                            20 => slabs.kvfree_rcu_barrier(),
                            30 | 40 => slabs.kvfree_rcu_barrier_on_cache(caches[0]),
                            45 => {
                                let name = format!("own{number}");
                                let own = create(slabs, &name);
                                let some = take(own, OF_SHEAF + 2, shared);
                                counts.fetch_add(OF_SHEAF + 2, Relaxed);
                                free_rcu_at_once(slabs, some);
                                destroy(slabs, own);
                            }
                            _ => {}
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join());
        drop(nmi);
        Hosted::call(Hosted::online_cpus(), &|| ());
        slabs.kvfree_rcu_barrier();
        assert_eq!(shared.ended(), queued.load(Relaxed));
        assert!(count(slabs, "rcu.defer") > 0);
        assert_eq!(count(slabs, "rcu.defer"), count(slabs, "rcu.defer_run"));
        walk(slabs, engine);
        for cache in caches {
            destroy(slabs, cache);
        }
    });
}
