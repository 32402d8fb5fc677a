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
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use mm::slab::{Flags, Spec, stats::Stat};
use platform::{
    Platform,
    hosted::{Hosted, Injection},
};

use crate::{
    common::{
        Allocator, CAPACITY, Cache, OF_SHEAF, Section, Shared, count, cpu, create, destroy,
        free_rcu_at_once, linger, on, rcu_count, spec, take, wait_until, walk, without_drainers,
        world,
    },
    world::{World, rounds},
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
fn destroy_waits_for_what_others_free() {
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
            let over: Arc<AtomicBool> = Arc::default();
            let says = Arc::clone(&over);
            let destroyer = world.machine.spawn_on(cpu(2), move || {
                destroy(slabs, cache);
                says.store(true, Release);
            });
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

fn barrier(slabs: &Allocator, cache: &Cache, of_all: bool) {
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

/// Stops a CPU at the nth point after it has taken a ripe sheaf off its lane.
struct Stop {
    at: AtomicU64,
    /// Points since then.
    points: AtomicU64,
    /// How often sheaves had been taken before.
    taken: AtomicU64,
    stopped: AtomicBool,
    go_on: AtomicBool,
}

impl Stop {
    fn new(world: &World, slabs: &'static Allocator) -> (Arc<Self>, Injection) {
        let stop = Arc::new(Self {
            at: AtomicU64::new(u64::MAX),
            points: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            go_on: AtomicBool::new(true),
        });
        let this = Arc::clone(&stop);
        let injection = world.machine.on_nmi(1, move || {
            let here = Hosted::current_cpu() == cpu(1);
            if !here || count(slabs, "rcu.take_sheaf") == this.taken.load(Relaxed) {
                return;
            }
            // Once for each time that it is set.
            let point = this.points.fetch_add(1, Relaxed);
            let due = this.at.compare_exchange(point, u64::MAX, Acquire, Relaxed);
            if due.is_err() {
                return;
            }
            this.stopped.store(true, Release);
            while !this.go_on.load(Acquire) {
                Hosted::relax();
            }
            this.stopped.store(false, Release);
        });
        (stop, injection)
    }

    fn begin(&self, slabs: &Allocator, at: u64) {
        wait_until(|| !self.stopped.load(Acquire));
        self.taken.store(count(slabs, "rcu.take_sheaf"), Relaxed);
        self.points.store(0, Relaxed);
        self.go_on.store(false, Release);
        self.at.store(at, Release);
    }
}

/// A drainer stops at each point in turn after it has taken a full sheaf off its lane, with `f` called on another CPU
/// meanwhile, and goes on when that waits, or has ended.
fn at_each_point(with_destructor: bool, f: fn(&'static Allocator, &'static Cache, u64)) {
    let world = world(3);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let (stop, injection) = Stop::new(&world, slabs);
        for at in 0.. {
            let plain = Spec::new("test", 96)
                .sheaf_capacity(CAPACITY)
                .flags(Flags::NO_MERGE);
            let spec = if with_destructor { spec("test") } else { plain };
            let cache = slabs.create(&spec).expect("a cache");
            let before = shared.ended();
            stop.begin(slabs, at);
            // It may be stopped with its CPU, so that it is joined later.
            let queuer = world.machine.spawn_on(cpu(1), move || {
                free_rcu_at_once(slabs, take(cache, OF_SHEAF + 1, shared));
            });
            let queued = || cache.stat(Stat::FreeRcuSheaf) == OF_SHEAF + 1;
            wait_until(|| stop.stopped.load(Acquire) || queued() && !cache.has_in_flight());
            if !stop.stopped.load(Acquire) {
                stop.at.store(u64::MAX, Release);
                queuer.join();
                destroy(slabs, cache);
                assert!(at > 5, "there are more points than {at}");
                break;
            }
            let over: Arc<AtomicBool> = Arc::default();
            let (says, gone) = (Arc::clone(&over), Arc::clone(&stop));
            let other = world.machine.spawn_on(cpu(2), move || {
                // When the CPU has nothing else to do: then who waits is what has to go on.
                let until = Hosted::now_ns() + 2_000_000;
                wait_until(|| says.load(Acquire) || Hosted::now_ns() > until);
                gone.go_on.store(true, Release);
            });
            let expected = if with_destructor {
                before + OF_SHEAF + 1
            } else {
                before
            };
            f(slabs, cache, at);
            assert_eq!(shared.ended(), expected, "stopped at point {at}");
            over.store(true, Release);
            other.join();
            queuer.join();
        }
        drop(injection);
        walk(slabs, engine);
    });
}

#[test]
fn destroy_meets_a_drainer_anywhere() {
    for with_destructor in [false, true] {
        at_each_point(with_destructor, |slabs, cache, _| destroy(slabs, cache));
    }
}

#[test]
fn barriers_meet_a_drainer_anywhere() {
    at_each_point(true, |slabs, cache, at| {
        barrier(slabs, cache, true);
        assert!(!cache.has_in_flight(), "stopped at point {at}");
        destroy(slabs, cache);
    });
    at_each_point(true, |slabs, cache, at| {
        barrier(slabs, cache, false);
        assert!(!cache.has_in_flight(), "stopped at point {at}");
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
