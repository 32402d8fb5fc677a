//! Before there is an engine of RCU, and before there are drainers.

use mm::{
    Gfp,
    report::Kind,
    slab::{Flags, KmemCache},
};

use crate::common::{
    OF_SHEAF, Shared, count, create, destroy, free_rcu, free_rcu_at_once, spec, take, wait_until,
    walk, without_drainers, world,
};

/// What was queued without an engine waits for the first grace period of one.
#[test]
fn what_was_queued_before_there_was_an_engine_waits_for_it() {
    let world = world(2);
    let shared = Shared::new();
    let caches = world.run(|slabs| {
        let cache = create(slabs, "sheaves");
        let debug = slabs.create(&spec("debug").flags(Flags::POISON)).unwrap();
        free_rcu_at_once(slabs, take(cache, 3 * OF_SHEAF + 1, shared));
        free_rcu_at_once(slabs, take(debug, 100, shared));
        free_rcu(slabs, slabs.kmalloc(20_000, Gfp::KERNEL).unwrap());
        assert!(cache.has_in_flight() && debug.has_in_flight());
        assert_eq!(cache.in_flight(), 3 * OF_SHEAF, "one is in the open sheaf");
        assert_eq!(debug.in_flight(), 100);
        // Nobody knows of readers yet, so nothing can be freed.
        assert_eq!(slabs.flush_kvfree_rcu(), 0);
        assert_eq!(shared.ended(), 0);
        [cache, debug]
    });
    world.run_with_rcu(|slabs, engine| {
        // Nobody asks for it: batches that were closed have been given names, and those that are open are closed by their age.
        wait_until(|| shared.ended() == 3 * OF_SHEAF + 101);
        assert!(count(slabs, "lane.call") > 0);
        walk(slabs, engine);
        caches.into_iter().for_each(|cache| destroy(slabs, cache));
    });
}

/// An engine without drainers: barriers free, and ends of caches.
#[test]
fn nothing_but_the_age_hangs_on_drainers() {
    let world = world(2);
    let shared = Shared::new();
    without_drainers(&world, |slabs, engine| {
        let (cache, other) = (create(slabs, "test"), create(slabs, "other"));
        for cache in [cache, other] {
            free_rcu_at_once(slabs, take(cache, 30, shared));
        }
        slabs.kvfree_rcu_barrier_on_cache(cache);
        assert_eq!(shared.ended(), 30);
        assert!(!cache.has_in_flight() && other.has_in_flight());
        free_rcu_at_once(slabs, take(cache, 30, shared));
        destroy(slabs, cache);
        assert_eq!(shared.ended(), 60);
        slabs.kvfree_rcu_barrier();
        assert_eq!(shared.ended(), 90);
        // They find what was queued before they came.
        free_rcu_at_once(slabs, take(other, 30, shared));
        slabs
            .start_drainer(platform::CpuId::BOOT)
            .expect("a thread");
        wait_until(|| shared.ended() == 120);
        walk(slabs, engine);
        destroy(slabs, other);
    });
}

/// A cache that is destroyed then cannot wait: it is a zombie, and goes with the last of its
/// objects when there is an engine.
#[test]
fn a_cache_that_ends_before_there_is_an_engine_goes_when_there_is_one() {
    let world = world(2);
    let shared = Shared::new();
    let left = OF_SHEAF + 1;
    world.run(|slabs| {
        for (cache, objects) in [
            (create(slabs, "sheaves"), left),
            (
                slabs.create(&spec("debug").flags(Flags::POISON)).unwrap(),
                10,
            ),
        ] {
            free_rcu_at_once(slabs, take(cache, objects, shared));
            // SAFETY: nobody uses it any more.
            let leaked = unsafe { slabs.destroy(cache) };
            assert_eq!(leaked.map_err(|leaked| leaked.objects), Err(objects));
        }
    });
    assert_eq!(world.take_reports(Kind::SlabLeak) as u64, left + 10);
    world.run_with_rcu(|slabs, engine| {
        wait_until(|| shared.ended() == left + 10);
        slabs.kvfree_rcu_barrier();
        walk(slabs, engine);
        let caches = slabs.caches();
        assert!(!caches.iter().any(KmemCache::is_dying));
    });
}
