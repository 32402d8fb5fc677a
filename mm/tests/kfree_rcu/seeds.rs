//! Faults that Linux has had, each with a test that fails if what keeps it away is taken out.
//!
//! | fault | test |
//! |---|---|
//! | a cache is destroyed while objects wait | `destroy_waits_for_readers` |
//! | flushed, but not waited for | `destroy_waits_for_what_others_free`, `destroy_meets_a_drainer_anywhere` |
//! | a sheaf comes back into the barn after that was emptied | `destroy_meets_a_drainer_anywhere` |
//! | a barrier returns while something is between two lists | `barriers_wait_for_what_others_free`, `barriers_meet_a_drainer_anywhere`, `barriers_wait_for_what_is_taken_while_they_run` |

use std::sync::{
    Arc,
    atomic::{
        AtomicBool,
        Ordering::{Acquire, Release},
    },
};

use mm::slab::Flags;
use platform::{Platform, hosted::Hosted};

use crate::{
    common::{
        Allocator, Cache, OF_SHEAF, Section, Shared, count, cpu, create, destroy, free_rcu_at_once,
        linger, on, rcu_count, spec, take, wait_until, walk, without_drainers, world,
    },
    world::rounds,
};

#[test]
fn destroy_waits_for_readers() {
    let world = world(3);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        for round in 0..4 {
            let pages = round % 2 == 1;
            let spec = if pages {
                spec("test").flags(Flags::POISON)
            } else {
                spec("test")
            };
            let cache = slabs.create(&spec).expect("a cache");
            let ended = shared.ended();
            let section = Section::begin(&world, cpu(1));
            free_rcu_at_once(slabs, take(cache, OF_SHEAF + 1, shared));
            let waits = rcu_count(engine, "exp.start");
            std::thread::scope(|_| {
                let over: Arc<AtomicBool> = Arc::default();
                let says = Arc::clone(&over);
                let destroyer = world.machine.spawn_on(cpu(2), move || {
                    destroy(slabs, cache);
                    says.store(true, Release);
                });
                wait_until(|| rcu_count(engine, "exp.start") > waits);
                linger();
                assert!(!over.load(Acquire), "a reader is there");
                assert_eq!(shared.ended(), ended);
                section.end();
                destroyer.join();
            });
            assert_eq!(shared.ended(), ended + OF_SHEAF + 1);
        }
        walk(slabs, engine);
    });
}

/// Objects that a drainer has in its hands, in the middle of a destructor.
#[test]
pub fn destroy_waits_for_what_others_free() {
    let world = world(3);
    world.run_with_rcu(|slabs, engine| {
        for kind in [Flags::empty(), Flags::POISON] {
            let shared = Shared::new();
            shared.hold.store(true, Release);
            let cache = slabs.create(&spec("test").flags(kind)).expect("a cache");
            on(&world, cpu(1), move || {
                free_rcu_at_once(slabs, take(cache, 3, shared));
            });
            shared.wait_held();
            let waited = count(slabs, "hands.wait");
            let over: Arc<AtomicBool> = Arc::default();
            let says = Arc::clone(&over);
            let destroyer = world.machine.spawn_on(cpu(2), move || {
                destroy(slabs, cache);
                says.store(true, Release);
            });
            wait_until(|| count(slabs, "hands.wait") > waited || over.load(Acquire));
            linger();
            assert!(!over.load(Acquire), "a drainer has objects in its hands");
            shared.hold.store(false, Release);
            destroyer.join();
            assert_eq!(shared.ended(), 3);
        }
        assert!(count(slabs, "hands.wait") >= 2);
        walk(slabs, engine);
    });
}

#[test]
fn barriers_wait_for_what_others_free() {
    let world = world(3);
    world.run_with_rcu(|slabs, engine| {
        for round in 0..4 {
            let shared = Shared::new();
            shared.hold.store(true, Release);
            let kind = [Flags::empty(), Flags::POISON][round / 2];
            let cache = slabs.create(&spec("test").flags(kind)).expect("a cache");
            on(&world, cpu(1), move || {
                free_rcu_at_once(slabs, take(cache, 3, shared));
            });
            shared.wait_held();
            let over: Arc<AtomicBool> = Arc::default();
            let says = Arc::clone(&over);
            let waiter = world.machine.spawn_on(cpu(2), move || {
                barrier(slabs, cache, round % 2 == 0);
                says.store(true, Release);
                assert_eq!(shared.ended(), 3, "the barrier is over");
            });
            linger();
            assert!(!over.load(Acquire), "a drainer has objects in its hands");
            shared.hold.store(false, Release);
            waiter.join();
            destroy(slabs, cache);
        }
        walk(slabs, engine);
    });
}

pub fn barrier(slabs: &Allocator, cache: &Cache, of_all: bool) {
    if of_all {
        slabs.kvfree_rcu_barrier();
    } else {
        slabs.kvfree_rcu_barrier_on_cache(cache);
    }
}

/// While a barrier frees what is on one CPU's lane, another CPU's drainer takes what is on its own.
#[test]
fn barriers_wait_for_what_is_taken_while_they_run() {
    for of_all in [true, false] {
        let world = world(3);
        without_drainers(&world, |slabs, engine| {
            let (first, second) = (Shared::new(), Shared::new());
            let cache = create(slabs, "test");
            first.hold.store(true, Release);
            second.hold.store(true, Release);
            let section = Section::begin(&world, cpu(2));
            // The first CPU has no drainer, so that the barrier frees what is there.
            free_rcu_at_once(slabs, take(cache, 1, first));
            on(&world, cpu(1), move || {
                free_rcu_at_once(slabs, take(cache, 2 * OF_SHEAF, second));
            });
            let waits = rcu_count(engine, "exp.start");
            let over: Arc<AtomicBool> = Arc::default();
            let says = Arc::clone(&over);
            let waiter = world.machine.spawn_on(cpu(0), move || {
                barrier(slabs, cache, of_all);
                says.store(true, Release);
                assert_eq!(first.ended() + second.ended(), 1 + 2 * OF_SHEAF);
            });
            wait_until(|| rcu_count(engine, "exp.start") > waits);
            section.end();
            // The barrier is at what the first CPU queued; now comes a drainer for the second.
            first.wait_held();
            slabs.start_drainer(cpu(1)).expect("a thread");
            second.wait_held();
            first.hold.store(false, Release);
            wait_until(|| first.ended() == 1);
            linger();
            assert!(!over.load(Acquire), "a drainer has objects in its hands");
            second.hold.store(false, Release);
            waiter.join();
            walk(slabs, engine);
            destroy(slabs, cache);
        });
    }
}

/// All lanes' open pages are closed by one barrier.
#[test]
fn a_barrier_closes_the_pages_of_all_cpus() {
    let world = world(4);
    without_drainers(&world, |slabs, engine| {
        let shared = Shared::new();
        let cache = slabs.create(&spec("test").flags(Flags::POISON)).unwrap();
        for number in 0..4 {
            on(&world, cpu(number), move || {
                free_rcu_at_once(slabs, take(cache, 3, shared));
            });
        }
        slabs.kvfree_rcu_barrier();
        assert_eq!(shared.ended(), 12);
        walk(slabs, engine);
        destroy(slabs, cache);
    });
}

/// While a CPU closes its open sheaves for a barrier another one frees what is ripe on its lane.
#[test]
fn a_barrier_misses_no_open_sheaf_of_a_lane_that_others_drain() {
    const CACHES: usize = 16;
    let world = world(4);
    without_drainers(&world, |slabs, engine| {
        let shared = Shared::new();
        let names: Vec<_> = (0..CACHES).map(|number| format!("test{number}")).collect();
        let caches: Vec<_> = names.iter().map(|name| create(slabs, name)).collect();
        let queue = |count: u64| {
            let caches = caches.clone();
            on(&world, cpu(1), move || {
                for cache in caches {
                    free_rcu_at_once(slabs, take(cache, count, shared));
                }
            });
        };
        let mut all = 0;
        for round in 0..rounds(2_000, 60) {
            let section = Section::begin(&world, cpu(3));
            queue(OF_SHEAF + 1);
            let shrinks = world
                .machine
                .spawn_on(cpu(2), move || slabs.flush_kvfree_rcu());
            wait_until(|| count(slabs, "rcu.close_barrier") > 0);
            // Open again.
            queue(1);
            all += CACHES as u64 * (OF_SHEAF + 2);
            section.end();
            for _ in 0..round % 40 * 10 {
                Hosted::relax();
            }
            slabs.kvfree_rcu_barrier();
            let left: Vec<_> = caches
                .iter()
                .filter(|cache| cache.has_in_flight())
                .map(|cache| cache.name().to_string())
                .collect();
            // The shrinker has the rest in its hands, if there is one.
            assert!(left.is_empty(), "round {round}: {left:?}");
            shrinks.join();
            assert_eq!(shared.ended(), all);
        }
        walk(slabs, engine);
        caches.into_iter().for_each(|cache| destroy(slabs, cache));
    });
}
