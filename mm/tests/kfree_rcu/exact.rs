//! What the end of a cache, and a barrier on it, ask of others: by counters, never by time. Drainers are left out, so that nobody
//! else asks for grace periods, and queues callbacks.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool,
        Ordering::{Acquire, Release},
    },
};

use mm::slab::Flags;
use rcu::hosted::Engine;

use crate::common::{
    Allocator, OF_SHEAF, Shared, count, cpu, create, destroy, free_rcu_at_once, on, rcu_count,
    spec, take, wait_until, walk, without_drainers, world,
};

/// What was asked of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    expedited: u64,
    normal: u64,
    callbacks: u64,
    barriers: u64,
}

fn asked(engine: &Engine) -> Asked {
    let stats = engine.stats();
    Asked {
        expedited: stats.expedited,
        normal: stats.grace_periods,
        callbacks: stats.queued + stats.barrier_callbacks,
        barriers: stats.barriers,
    }
}

/// Waits until the callbacks of closed batches have run: they ask for normal grace periods.
fn settle(engine: &Engine) -> Asked {
    engine.barrier();
    asked(engine)
}

fn closings(slabs: &Allocator) -> u64 {
    let arrows = slabs.arrows();
    let closed = arrows.filter(|(name, _)| name.starts_with("rcu.close_"));
    closed.map(|(_, times)| times).sum()
}

#[test]
fn the_end_of_an_idle_cache_asks_for_nothing() {
    let world = world(2);
    without_drainers(&world, |slabs, engine| {
        let shared = Shared::new();
        let other = create(slabs, "other");
        // Others have things in flight, in sheaves and pages, open and closed.
        free_rcu_at_once(slabs, take(other, 2 * OF_SHEAF + 1, shared));
        let debug = slabs.create(&spec("debug").flags(Flags::POISON)).unwrap();
        free_rcu_at_once(slabs, take(debug, 3, shared));
        let before = settle(engine);
        for round in 0..6 {
            let cache = create(slabs, "test");
            let all = take(cache, 40, shared);
            for object in all {
                // SAFETY: allocated above, and not used any more.
                unsafe { cache.free(object) };
            }
            let closed = closings(slabs);
            if round % 2 == 0 {
                slabs.kvfree_rcu_barrier_on_cache(cache);
            }
            destroy(slabs, cache);
            assert_eq!(asked(engine), before, "round {round}");
            assert_eq!(closings(slabs), closed, "of others, too");
            assert_eq!(count(slabs, "hands.wait"), 0);
            assert_eq!(count(slabs, "rcu.take_own"), 0);
        }
        assert_eq!(other.in_flight(), 2 * OF_SHEAF);
        assert_eq!(shared.ended(), 0);
        walk(slabs, engine);
        destroy(slabs, other);
        destroy(slabs, debug);
    });
}

/// The same while other CPUs flood another cache: no batch of that one is closed by the destroyer, and none is waited for.
#[test]
fn the_end_of_an_idle_cache_minds_no_flood() {
    let world = world(4);
    without_drainers(&world, |slabs, engine| {
        slabs.kvfree_rcu().set_soft_limit(u64::MAX / 16);
        let shared = Shared::new();
        let other = create(slabs, "other");
        let over: Arc<AtomicBool> = Arc::default();
        let floods: Vec<_> = (1..4)
            .map(|number| {
                let over = Arc::clone(&over);
                world.machine.spawn_on(cpu(number), move || {
                    let mut queued = 0;
                    while !over.load(Acquire) {
                        free_rcu_at_once(slabs, take(other, OF_SHEAF, shared));
                        queued += OF_SHEAF;
                        if queued % (OF_SHEAF * 64) == 0 {
                            slabs.kvfree_rcu_barrier_on_cache(other);
                        }
                    }
                    queued
                })
            })
            .collect();
        wait_until(|| count(slabs, "rcu.close_full") > 20);
        for _ in 0..20 {
            let cache = create(slabs, "test");
            for object in take(cache, 40, shared) {
                // SAFETY: allocated above, and not used any more.
                unsafe { cache.free(object) };
            }
            assert!(!cache.has_in_flight());
            destroy(slabs, cache);
        }
        over.store(true, Release);
        let queued: u64 = floods.into_iter().map(|flood| flood.join()).sum();
        slabs.kvfree_rcu_barrier_on_cache(other);
        assert_eq!(shared.ended(), queued);
        walk(slabs, engine);
        destroy(slabs, other);
    });
}

/// However many batches there are, on however many CPUs.
#[test]
fn the_end_of_a_cache_asks_for_one_grace_period_at_most() {
    let world = world(4);
    without_drainers(&world, |slabs, engine| {
        let shared = Shared::new();
        for (round, flags) in [Flags::empty(), Flags::POISON].into_iter().enumerate() {
            let cache = slabs.create(&spec("test").flags(flags)).unwrap();
            for number in 0..4 {
                on(&world, cpu(number), move || {
                    free_rcu_at_once(slabs, take(cache, 5 * OF_SHEAF + 2, shared));
                });
            }
            let expedited = engine.stats().expedited;
            let barriers = engine.stats().barriers;
            let mine = rcu_count(engine, "exp.start");
            destroy(slabs, cache);
            assert_eq!(shared.ended(), (round as u64 + 1) * 4 * (5 * OF_SHEAF + 2));
            assert_eq!(engine.stats().expedited, expedited + 1);
            assert_eq!(rcu_count(engine, "exp.start"), mine + 1);
            assert_eq!(engine.stats().barriers, barriers);
        }
        walk(slabs, engine);
    });
}

/// Cookies that are done already are not waited for again: of sheaves that were closed since they were full, or since
/// their CPU has gone, and of full pages.
#[test]
fn the_end_of_a_cache_asks_for_nothing_if_its_cookies_are_done() {
    let world = world(2);
    without_drainers(&world, |slabs, engine| {
        let shared = Shared::new();
        for round in 0..4 {
            let pages = round % 2 == 1;
            let (cache, other) = (
                slabs
                    .create(&spec("test").flags(if pages { Flags::POISON } else { Flags::empty() }))
                    .unwrap(),
                slabs.create(&spec("other").sheaf_capacity(0)).unwrap(),
            );
            let ended = shared.ended();
            let count = if pages { 509 } else { 3 * OF_SHEAF + 1 };
            on(&world, cpu(1), move || {
                free_rcu_at_once(slabs, take(cache, count, shared));
                // Its page is full.
                free_rcu_at_once(slabs, take(other, u64::from(pages), shared));
            });
            rcu::hosted::offline(engine, cpu(1));
            // SAFETY: it does not run until it is brought back below.
            unsafe { slabs.flush_offline(cpu(1)) };
            assert_eq!(cache.in_flight(), count, "nothing is open");
            if round < 2 {
                engine.synchronize();
            } else {
                engine.synchronize_expedited();
            }
            let before = settle(engine);
            destroy(slabs, cache);
            assert_eq!(shared.ended(), ended + count);
            assert_eq!(asked(engine), before, "round {round}");
            rcu::hosted::online(engine, cpu(1));
            destroy(slabs, other);
        }
        walk(slabs, engine);
    });
}

/// A barrier on a cache closes what that cache has open, on the CPUs where it has, and no more.
#[test]
fn a_barrier_on_a_cache_leaves_others_alone() {
    let world = world(4);
    without_drainers(&world, |slabs, engine| {
        let shared = Shared::new();
        let (cache, other) = (create(slabs, "test"), create(slabs, "other"));
        for number in 0..4 {
            on(&world, cpu(number), move || {
                free_rcu_at_once(slabs, take(other, OF_SHEAF + 1, shared));
                if number % 2 == 1 {
                    free_rcu_at_once(slabs, take(cache, 1, shared));
                }
            });
        }
        let before = settle(engine);
        slabs.kvfree_rcu_barrier_on_cache(cache);
        assert_eq!(count(slabs, "rcu.close_barrier"), 2);
        assert_eq!(shared.ended(), 2);
        assert_eq!(other.in_flight(), 4 * OF_SHEAF);
        let after = settle(engine);
        assert_eq!(after.expedited, before.expedited + 1);
        slabs.kvfree_rcu_barrier();
        assert_eq!(count(slabs, "rcu.close_barrier"), 6);
        // Nothing is there any more.
        let before = settle(engine);
        slabs.kvfree_rcu_barrier();
        slabs.kvfree_rcu_barrier_on_cache(other);
        assert_eq!(asked(engine), before);
        walk(slabs, engine);
        destroy(slabs, cache);
        destroy(slabs, other);
    });
}
