//! A drainer is stopped at each point in turn after it has taken something off its lane, while others end the cache, or make a
//! barrier: what it has in its hands is waited for, and nothing of it comes back where it was flushed.

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
        Allocator, CAPACITY, Cache, OF_SHEAF, Shared, count, cpu, destroy, free_rcu_at_once, spec,
        take, wait_until, walk, world,
    },
    seeds::barrier,
    world::World,
};

/// Stops a CPU at the nth point after it has taken a ripe sheaf off its lane.
struct Stop {
    at: AtomicU64,
    /// Points since then.
    points: AtomicU64,
    /// How often sheaves had been taken before.
    taken: AtomicU64,
    stopped: AtomicBool,
    /// That was seen.
    seen: AtomicBool,
    go_on: AtomicBool,
    /// It goes on.
    over: AtomicBool,
}

impl Stop {
    fn new(world: &World, slabs: &'static Allocator) -> (Arc<Self>, Injection) {
        let stop = Arc::new(Self {
            at: AtomicU64::new(u64::MAX),
            points: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            seen: AtomicBool::new(false),
            go_on: AtomicBool::new(true),
            over: AtomicBool::new(false),
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
            // For a while, in which whoever does not wait for this has ended. What it holds others may spin for, so it does
            // not hang on them.
            let wait_for = |flag: &AtomicBool, ns| {
                let until = Hosted::now_ns() + ns;
                while !flag.load(Acquire) && Hosted::now_ns() < until {
                    Hosted::relax();
                }
            };
            wait_for(&this.seen, 500_000_000);
            wait_for(&this.go_on, 2_000_000);
            this.over.store(true, Release);
        });
        (stop, injection)
    }

    fn begin(&self, slabs: &Allocator, at: u64) {
        self.stopped.store(false, Relaxed);
        self.seen.store(false, Relaxed);
        self.over.store(false, Relaxed);
        self.taken.store(count(slabs, "rcu.take_sheaf"), Relaxed);
        self.points.store(0, Relaxed);
        self.go_on.store(false, Release);
        self.at.store(at, Release);
    }
}

/// A drainer stops at each point in turn after it has taken a full sheaf off its lane, with `f` called on another CPU
/// meanwhile, and goes on when that has ended, or has waited for a while.
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
            stop.seen.store(true, Release);
            let expected = if with_destructor {
                before + OF_SHEAF + 1
            } else {
                before
            };
            f(slabs, cache, at);
            assert_eq!(shared.ended(), expected, "stopped at point {at}");
            stop.go_on.store(true, Release);
            wait_until(|| stop.over.load(Acquire));
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
