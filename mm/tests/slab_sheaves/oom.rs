//! Memory ends, at every step in turn.

use mm::{
    Gfp,
    slab::{Flags, Spec},
};
use platform::{NodeId, hosted::Machine};

use crate::{
    arrows::{Taken, count, taken},
    objects::{
        alloc, alloc_bulk, alloc_node, alloc_nolock, alloc_prefilled, fail_pages, free_bulk, give,
        take,
    },
    paths::{alone, end, small_sheaves},
    world::{MIB, World},
};

const QUIET: Gfp = Gfp::KERNEL.union(Gfp::NOWARN);

/// Sheaves as large as a kmalloc object can be: a slab of those is soon used up.
const LARGE: u32 = 1000;

pub fn sheaves_without_memory() -> Taken {
    let world = alone();
    world.run(|slabs| {
        let spec = |name| {
            Spec::new(name, 1000)
                .sheaf_capacity(LARGE)
                .flags(Flags::NO_MERGE)
        };
        let cache = slabs.create(&spec("large_sheaves")).expect("a cache");
        let other = slabs.create(&spec("no_sheaves")).expect("a cache");
        let objects = take(cache, 6 * LARGE as usize);
        // A partial slab, made without a sheaf.
        let first = alloc_nolock(other).expect("memory");
        let mut sheaves = Vec::new();
        fail_pages(&world, Some(0));
        while let Some(memory) = slabs.kmalloc(8000, QUIET) {
            sheaves.push(memory);
        }
        // No memory for the first sheaf.
        let second = alloc(other, QUIET).expect("there is a slab");
        assert!(count(&world, "alloc.no_main") > 0);
        give(other, [first, second]);
        // None for an empty one.
        give(cache, objects);
        assert!(count(&world, "free.flush_no_memory") > 0);
        // And at last none for objects.
        let mut objects = Vec::new();
        while let Some(object) = alloc(cache, QUIET) {
            objects.push(object);
        }
        assert!(count(&world, "supply.none") > 0);
        give(cache, objects);
        fail_pages(&world, None);
        for memory in sheaves {
            // SAFETY: of kmalloc, and not used.
            unsafe { slabs.kfree(memory) };
        }
        // The reserve is for those who cannot wait.
        let mut objects = Vec::new();
        while let Some(object) = alloc(cache, Gfp::NOWAIT) {
            objects.push(object);
        }
        objects.push(alloc(cache, Gfp::ATOMIC).expect("there is a reserve"));
        assert!(count(&world, "supply.fresh_reclaimed") > 0);
        give(cache, objects);
        end(slabs, cache);
        end(slabs, other);
    });
    taken(&world)
}

#[test]
fn without_memory_for_sheaves_there_are_objects_all_the_same() {
    sheaves_without_memory();
}

/// Everything that may allocate, with memory that ends after so many blocks of pages: all is back
/// each time, also what was allocated in part.
#[test]
fn at_every_step() {
    let memory = mm::hosted::Memory::builder().node(16 * MIB).node(16 * MIB);
    let world = World::new(Machine::builder().cpus(2).nodes(2), memory);
    world.run(|slabs| {
        let cache = small_sheaves(slabs, "steps");
        let large = slabs.create(&Spec::new("large", 3000)).expect("a cache");
        let mut failures = 0;
        for pages in 0.. {
            fail_pages(&world, Some(pages));
            let mut failed = 0;
            for cache in [cache, large] {
                let mut objects = Vec::new();
                let mut note = |found: Option<crate::objects::Object>| match found {
                    Some(object) => objects.push(object),
                    None => failed += 1,
                };
                note(alloc(cache, QUIET));
                note(alloc_node(
                    cache,
                    QUIET,
                    NodeId::from_index(1).expect("a node"),
                ));
                for count in [3, 30, 100] {
                    match alloc_bulk(cache, QUIET, count) {
                        Some(many) => objects.extend(many),
                        None => failed += 1,
                    }
                }
                for count in [2, 40] {
                    match cache.prefill(QUIET, count) {
                        Some(mut sheaf) => {
                            assert!(sheaf.len() >= count);
                            let more = sheaf.refill(QUIET, 3 * count);
                            assert!(sheaf.len() >= if more { 3 * count } else { count });
                            failed += usize::from(!more);
                            objects.extend(alloc_prefilled(&mut sheaf));
                        }
                        None => failed += 1,
                    }
                }
                free_bulk(cache, objects);
            }
            failures += failed;
            fail_pages(&world, None);
            for cache in slabs.caches().iter() {
                cache.shrink();
            }
            if failed == 0 {
                assert!(
                    pages > 3 && failures > 20,
                    "{pages} blocks, {failures} failures"
                );
                break;
            }
        }
        end(slabs, cache);
        end(slabs, large);
    });
}
