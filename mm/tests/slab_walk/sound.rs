//! Heaps in which nothing is wrong.

use mm::{
    Gfp,
    hosted::Memory,
    slab::{Flags, Spec},
};
use platform::hosted::Machine;
use rcu::hosted::Engine;

use crate::{
    MIB, PAGE, World, cache, lone, tally,
    world::{free, take},
};

#[test]
fn each_object_is_in_one_place_and_the_sums_are_right() {
    let world = World::small();
    world.run(|slabs| {
        let before = tally(slabs);
        let cache = cache(slabs, "walked", 64);
        let made = tally(slabs);
        assert_eq!(made.caches, before.caches + 1);
        let mut objects = take(cache, 1000);
        let held = tally(slabs);
        // The cache's sheaves are objects of kmalloc, which are allocated as well.
        assert!(held.allocated() >= made.allocated() + 1000, "{held}");
        assert_eq!(held.deferred, 0);
        let rest = objects.split_off(500);
        free(cache, objects);
        let half = tally(slabs);
        assert!(half.in_sheaves + half.in_barns > made.in_sheaves, "{half}");
        free(cache, rest);
        // Nobody has one, but for the sheaves.
        let freed = tally(slabs);
        assert!(freed.allocated() < made.allocated() + 100, "{freed}");
        cache.shrink();
        let shrunk = tally(slabs);
        assert!(shrunk.slabs < half.slabs, "{shrunk}");
        assert_eq!(shrunk.in_barns, 0);
        // SAFETY: not used any more.
        unsafe { slabs.destroy(cache) }.unwrap();
        assert_eq!(tally(slabs).caches, before.caches);
    });
}

#[test]
fn pages_are_free_slabs_large_or_other() {
    let world = lone();
    world.run(|slabs| {
        let before = tally(slabs);
        let all = |pages: &mm::slab::walk::PageTally| {
            pages.free + pages.slabs + pages.large + pages.other + pages.bad + pages.boot
        };
        assert_eq!(all(&before.pages), 16 * MIB / PAGE);
        let large = slabs.kmalloc(100_000, Gfp::KERNEL).unwrap();
        let page = slabs.mm().alloc_pages(Gfp::KERNEL, 1, mm::Use::Pages);
        let now = tally(slabs).pages;
        assert_eq!(now.large, before.pages.large + 32);
        assert_eq!(now.other, before.pages.other + 2);
        assert_eq!(now.free, before.pages.free - 34);
        assert_eq!(all(&now), all(&before.pages));
        // SAFETY: allocated above.
        unsafe {
            slabs.kfree(large);
            slabs.mm().free_pages(page.unwrap(), 1, mm::Use::Pages);
        }
        assert_eq!(tally(slabs), before);
    });
}

#[test]
fn debug_caches_and_those_with_rcu_are_walked_too() {
    let memory = Memory::builder().node(32 * MIB);
    let world = World::new(Machine::builder().cpus(2), memory);
    world.run(|slabs| {
        let engine = Engine::start(&world.machine, rcu::Config::default());
        // SAFETY: when the engine ends nothing waits for it, nor will it.
        unsafe { slabs.set_rcu(&engine) };
        let all = Flags::RED_ZONE | Flags::POISON | Flags::STORE_USER | Flags::CONSISTENCY_CHECKS;
        for flags in [all, Flags::RED_ZONE, Flags::TYPESAFE_BY_RCU] {
            let spec = Spec::new("walked", 200).flags(flags | Flags::NO_MERGE);
            let cache = slabs.create(&spec).unwrap();
            let objects = take(cache, 100);
            let held = tally(slabs);
            assert!(held.allocated() >= 100, "{held}");
            free(cache, objects);
            tally(slabs);
            cache.shrink();
            // With RCU slabs wait for a grace period, or do not any more; their callbacks may
            // be about to free them.
            engine.barrier();
            tally(slabs);
            // SAFETY: not used any more.
            unsafe { slabs.destroy(cache) }.unwrap();
        }
        engine.barrier();
        tally(slabs);
    });
}

#[test]
fn a_cache_that_was_destroyed_with_objects_in_use_is_walked() {
    let world = lone();
    world.run(|slabs| {
        let cache = cache(slabs, "leaky", 64);
        let objects = take(cache, 3);
        // SAFETY: not used any more, but for frees.
        let leaked = unsafe { slabs.destroy(cache) }.unwrap_err();
        assert_eq!(leaked.objects, 3);
        let held = tally(slabs);
        assert!(held.allocated() >= 3, "{held}");
        free(cache, objects);
        tally(slabs);
    });
    world.take_reports(mm::report::Kind::SlabLeak);
}

/// More objects in sheaves than the table of a walk has room for: it looks in windows.
#[test]
fn what_does_not_fit_into_the_table_is_walked_piece_by_piece() {
    const CPUS: usize = 4;
    let mut memory = Memory::builder();
    for _ in 0..CPUS {
        memory = memory.node(16 * MIB);
    }
    let machine = Machine::builder().cpus(CPUS).nodes(CPUS);
    let world = World::new(machine, memory);
    let cache = world.run(|slabs| {
        let spec = Spec::new("many", 8).flags(Flags::NO_MERGE);
        slabs.create(&spec.sheaf_capacity(1000)).unwrap()
    });
    world.machine.run_on_all(|_| {
        let objects = take(cache, 12_500);
        free(cache, objects);
    });
    world.run(|slabs| {
        let tally = tally(slabs);
        assert!(tally.in_sheaves + tally.in_barns > 33_000, "{tally}");
        // SAFETY: not used any more.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}
