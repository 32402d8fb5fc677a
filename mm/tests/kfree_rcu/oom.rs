//! Memory that ends at each allocation inside of `kfree_rcu`: the object takes a lower road, which is counted, and is freed.

use std::ptr::NonNull;

use mm::{
    Gfp,
    reclaim::{Shrink, Wanted},
    slab::{Flags, Spec},
};

use crate::{
    common::{
        Allocator, OF_SHEAF, Section, Shared, count, cpu, create, destroy, fail_pages, free_rcu,
        free_rcu_at_once, spec, take, walk, world,
    },
    world::World,
};

const QUIET: Gfp = Gfp::NOWAIT.union(Gfp::NOWARN);

/// Uses up the free objects of the caches that sheaves come from: a sheaf of [`OF_SHEAF`] and one has 80 bytes.
fn use_up(world: &World, slabs: &Allocator) -> Vec<NonNull<u8>> {
    fail_pages(world, Some(0));
    core::iter::from_fn(|| slabs.kmalloc(80, QUIET)).collect()
}

fn give_back(world: &World, slabs: &Allocator, all: Vec<NonNull<u8>>) {
    fail_pages(world, None);
    for memory in all {
        // SAFETY: of kmalloc, and not used.
        unsafe { slabs.kfree(memory) };
    }
}

/// No spare page is kept on any lane.
fn drop_spares(slabs: &Allocator) {
    slabs.kvfree_rcu_barrier();
    slabs.kvfree_rcu().scan(Wanted {
        frames: 1,
        gfp: Gfp::KERNEL,
    });
}

/// The roads of one object with memory for so many blocks of pages: what was counted.
fn roads(slabs: &Allocator) -> [u64; 5] {
    [
        "rcu.open",
        "rcu.no_sheaf",
        "rcu.page",
        "rcu.chain",
        "rcu.synchronize",
    ]
    .map(|arrow| count(slabs, arrow))
}

/// Sheaf, page, head, and the caller's own wait.
#[test]
fn each_allocation_that_fails_leads_to_the_next_road() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let cache = create(slabs, "test");
        let mut objects = take(cache, 4, shared);
        let mut next = || objects.pop().expect("there are enough");
        let mut before = roads(slabs);
        let mut went = |slabs: &Allocator| {
            let now = roads(slabs);
            let went: [u64; 5] = core::array::from_fn(|road| now[road] - before[road]);
            before = now;
            went
        };
        // With memory for all.
        free_rcu_at_once(slabs, vec![next()]);
        assert_eq!(went(slabs), [1, 0, 0, 0, 0]);
        drop_spares(slabs);
        cache.shrink();
        // For pages, to a cache without sheaves.
        let none = slabs.create(&spec("none").sheaf_capacity(0)).unwrap();
        let some = take(none, 3, shared);
        let used = use_up(&world, slabs);
        fail_pages(&world, Some(8));
        free_rcu_at_once(slabs, vec![some[0]]);
        assert_eq!(went(slabs), [0, 1, 1, 0, 0]);
        give_back(&world, slabs, used);
        drop_spares(slabs);
        // For nothing: by its head.
        let used = use_up(&world, slabs);
        free_rcu_at_once(slabs, vec![next(), some[1]]);
        assert_eq!(went(slabs), [0, 2, 0, 2, 0]);
        let ended = shared.ended();
        // There is none, either: it is free when the call returns.
        // SAFETY: an object of the test's.
        unsafe { slabs.kfree_rcu_mightsleep(some[2]) };
        assert_eq!(went(slabs), [0, 1, 0, 0, 1]);
        assert!(shared.ended() > ended);
        // SAFETY: the same.
        unsafe { slabs.kfree_rcu_mightsleep(next()) };
        assert_eq!(went(slabs), [0, 1, 0, 0, 1]);
        give_back(&world, slabs, used);
        slabs.kvfree_rcu_barrier();
        assert_eq!(shared.ended() + objects.len() as u64, 7);
        for object in objects {
            free_rcu(slabs, object);
        }
        walk(slabs, engine);
        destroy(slabs, cache);
        destroy(slabs, none);
    });
}

/// Everything at each number of blocks of pages that there are still: nothing is lost, nothing is freed early.
#[test]
fn at_every_step() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let (cache, debug) = (
            create(slabs, "test"),
            slabs.create(&spec("debug").flags(Flags::POISON)).unwrap(),
        );
        let mut queued = 0;
        for blocks in 0..12 {
            drop_spares(slabs);
            cache.shrink();
            let mut all = take(cache, 3 * OF_SHEAF, shared);
            all.extend(take(debug, 600, shared));
            all.push(slabs.kmalloc(1 << 14, Gfp::KERNEL).unwrap());
            queued += 3 * OF_SHEAF + 600;
            let used = use_up(&world, slabs);
            let section = Section::begin(&world, cpu(1));
            fail_pages(&world, Some(blocks));
            free_rcu_at_once(slabs, all);
            assert_eq!(
                shared.ended() + 3 * OF_SHEAF + 600,
                queued,
                "a reader is there"
            );
            section.end();
            match blocks % 3 {
                0 => slabs.kvfree_rcu_barrier(),
                1 => {
                    slabs.kvfree_rcu_barrier_on_cache(cache);
                    slabs.kvfree_rcu_barrier_on_cache(debug);
                }
                _ => crate::common::wait_until(|| shared.ended() == queued),
            }
            assert_eq!(shared.ended(), queued, "with {blocks} blocks");
            give_back(&world, slabs, used);
        }
        for road in ["rcu.chain", "rcu.page", "rcu.open", "rcu.no_sheaf"] {
            assert!(count(slabs, road) > 0, "{road}");
        }
        walk(slabs, engine);
        destroy(slabs, cache);
        destroy(slabs, debug);
    });
}

/// The end of a cache, and a barrier on it, find its objects in chains among those of others.
#[test]
pub fn chains_of_many_caches_are_taken_apart() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let names = ["one", "two", "three"];
        let caches = names.map(|name| slabs.create(&spec(name).sheaf_capacity(0)).unwrap());
        let plain = slabs
            .create(
                &Spec::new("plain", 64)
                    .sheaf_capacity(0)
                    .flags(Flags::NO_MERGE),
            )
            .unwrap();
        for round in 0..6 {
            drop_spares(slabs);
            let mut of_caches = caches.map(|cache| take(cache, 20, shared).into_iter());
            let mut others = (0..20).map(|_| plain.alloc(Gfp::KERNEL).unwrap());
            let mut mixed = Vec::new();
            for _ in 0..20 {
                of_caches.iter_mut().for_each(|of| mixed.extend(of.next()));
                mixed.extend(others.next());
            }
            fail_pages(&world, Some(0));
            let chained = count(slabs, "rcu.chain");
            let section = Section::begin(&world, cpu(1));
            free_rcu_at_once(slabs, mixed);
            fail_pages(&world, None);
            assert_eq!(count(slabs, "rcu.chain"), chained + 80);
            section.end();
            let ended = 60 * round;
            slabs.kvfree_rcu_barrier_on_cache(caches[round as usize % 3]);
            assert!(shared.ended() >= ended + 20);
            slabs.kvfree_rcu_barrier();
            assert_eq!(shared.ended(), ended + 60);
        }
        let mixed: Vec<_> = (0..10)
            .flat_map(|_| caches.map(|cache| take(cache, 1, shared)[0]))
            .collect();
        drop_spares(slabs);
        fail_pages(&world, Some(0));
        free_rcu_at_once(slabs, mixed);
        fail_pages(&world, None);
        for cache in caches {
            destroy(slabs, cache);
        }
        assert_eq!(shared.ended(), 390);
        destroy(slabs, plain);
        walk(slabs, engine);
    });
}
