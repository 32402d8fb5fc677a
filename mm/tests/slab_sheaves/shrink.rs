//! Giving memory back.

use std::sync::atomic::{AtomicBool, Ordering};

use mm::{Gfp, hosted::Memory, reclaim::Shrink, report::Kind, slab::CacheLock};
use platform::{
    CpuId, Platform,
    hosted::{Hosted, Machine},
};

use crate::{
    arrows::{Taken, count, taken},
    objects::{alloc, free, give, slabs_of, take},
    paths::{CAPACITY, alone, end, small_sheaves},
    world::{MIB, World},
};

pub fn everything_goes() -> Taken {
    let world = World::new(Machine::builder().cpus(2), Memory::builder().node(16 * MIB));
    let cache = world.run(|slabs| small_sheaves(slabs, "shrunk"));
    world.machine.run_on_all(|_| {
        let objects = take(cache, 30 * CAPACITY);
        give(cache, objects);
    });
    world.run(|slabs| {
        assert!(slabs_of(cache) > 0);
        let freed = cache.shrink();
        assert!(freed > 0);
        assert_eq!(slabs_of(cache), 0, "nothing is in use");
        assert!(count(&world, "cpu.drained") > 0 && count(&world, "barn.emptied") > 0);
        // Frees without sheaves, on CPUs that have none.
        let objects = take(cache, 2);
        cache.shrink();
        give(cache, objects);
        assert!(count(&world, "free.first_main") > 0);
        end(slabs, cache);
    });
    taken(&world)
}

/// A CPU whose sheaves are in use when it is asked for them is asked again.
pub fn a_cpu_is_asked_again() -> Taken {
    let world = World::new(Machine::builder().cpus(2), Memory::builder().node(16 * MIB));
    let cache = world.run(|slabs| small_sheaves(slabs, "busy"));
    let begun = AtomicBool::new(false);
    world.machine.run_on_all(|cpu| {
        if cpu == CpuId::BOOT {
            while !begun.load(Ordering::Acquire) {
                Hosted::relax();
            }
            cache.shrink();
            return;
        }
        let objects = take(cache, CAPACITY);
        give(cache, objects);
        cache.while_locked(CacheLock::Sheaves, || {
            begun.store(true, Ordering::Release);
            while count(&world, "cpu.drain_busy") == 0 {
                Hosted::relax();
            }
        });
    });
    world.run(|slabs| {
        assert_eq!(slabs_of(cache), 0, "it was given back in the end");
        end(slabs, cache);
    });
    taken(&world)
}

pub fn a_cache_that_goes() -> Taken {
    let world = alone();
    world.run(|slabs| {
        let cache = small_sheaves(slabs, "gone");
        let objects = take(cache, 3 * CAPACITY);
        let late = alloc(cache, Gfp::KERNEL).expect("memory");
        give(cache, objects);
        // SAFETY: not used any more but for the late free.
        let leaked = unsafe { slabs.destroy(cache) }.expect_err("one is in use");
        assert_eq!(leaked.objects, 1);
        free(cache, late);
        assert_eq!(count(&world, "free.dying"), 1);
    });
    assert!(world.take_reports(Kind::SlabLeak) > 0);
    taken(&world)
}

#[test]
fn sheaves_in_use_are_drained_later() {
    a_cpu_is_asked_again();
}

#[test]
fn shrinking_leaves_nothing_that_is_not_in_use() {
    everything_goes();
}

#[test]
fn a_free_after_the_end_of_a_cache() {
    a_cache_that_goes();
}

/// Short of memory, an allocation has other caches give back what they keep.
#[test]
fn memory_pressure_empties_barns_and_sheaves() {
    let world = World::new(Machine::builder(), Memory::builder().node(8 * MIB));
    let slabs = world.slabs();
    world.run(|slabs| {
        let cache = slabs
            .create(&mm::slab::Spec::new("kept", 2048))
            .expect("a cache");
        let objects = take(cache, 160);
        give(cache, objects);
        assert!(slabs_of(cache) > 0);
        assert!(slabs.count() > 0 && slabs.name() == "slab");
        world.mm().register_shrinker(slabs).expect("room");
        let mut blocks = Vec::new();
        while let Some(pfn) = world
            .mm()
            .alloc_pages(Gfp::KERNEL | Gfp::NOWARN, 3, mm::Use::Pages)
        {
            blocks.push(pfn);
        }
        assert_eq!(slabs_of(cache), 0, "all was given back first");
        assert!(world.mm().unregister_shrinker(slabs));
        for pfn in blocks {
            // SAFETY: allocated above.
            unsafe { world.mm().free_pages(pfn, 3, mm::Use::Pages) };
        }
        end(slabs, cache);
    });
    let _ = slabs;
}
