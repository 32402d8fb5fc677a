//! Prefilled sheaves.

use mm::{Gfp, slab::Flags, slab::Spec};

use crate::{
    arrows::{Taken, count, taken},
    objects::{alloc, alloc_prefilled, give, take},
    paths::{CAPACITY, alone, end, small_sheaves},
};

pub fn from_everywhere() -> Taken {
    let world = alone();
    world.run(|slabs| {
        let cache = small_sheaves(slabs, "prefilled");
        let prefill = |count| cache.prefill(Gfp::KERNEL, count).expect("memory");
        // Larger than the cache's.
        let mut large = prefill(10 * CAPACITY);
        assert_eq!(count(&world, "prefill.oversize"), 1);
        let mut objects = Vec::new();
        while let Some(object) = alloc_prefilled(&mut large) {
            objects.push(object);
        }
        assert_eq!(objects.len(), 10 * CAPACITY);
        assert!(large.refill(Gfp::KERNEL, CAPACITY));
        drop(large);
        // From slabs, and a larger one instead of it.
        let mut sheaf = prefill(CAPACITY);
        assert!(sheaf.len() >= CAPACITY && sheaf.capacity() == CAPACITY);
        assert!(sheaf.refill(Gfp::KERNEL, 2 * CAPACITY));
        assert_eq!(count(&world, "prefill.larger"), 1);
        drop(sheaf);
        give(cache, objects);
        // Two that are kept for long, made while nothing is at hand.
        cache.shrink();
        let [one, two] = [prefill(CAPACITY), prefill(CAPACITY)];
        // Ten empty ones in the barn, and two of the CPU's.
        let objects = take(cache, 12 * CAPACITY);
        give(cache, objects);
        let objects = take(cache, 12 * CAPACITY);
        // One comes back full, and goes to the barn, as there is a spare.
        let in_barn = count(&world, "return.barn");
        drop(one);
        assert_eq!(count(&world, "return.barn"), in_barn + 1);
        // Exchanged for an empty one, of which there are too many then.
        let object = alloc(cache, Gfp::KERNEL).expect("there is one");
        assert_eq!(count(&world, "barn.too_many_empty"), 1);
        // The spare is taken away: then an empty one comes from the barn for a free.
        let three = prefill(1);
        let empty = count(&world, "free.get_empty");
        give(cache, objects);
        assert!(count(&world, "free.get_empty") > empty);
        // Both barn and CPU are full: one is flushed, a part of it into main.
        let mut two = two;
        let used = alloc_prefilled(&mut two).expect("it is full");
        let flushed = count(&world, "return.flushed");
        drop(two);
        assert_eq!(count(&world, "return.flushed"), flushed + 1);
        cache.shrink();
        // No spare: it stays with the CPU.
        let spare = count(&world, "return.spare");
        drop(three);
        assert_eq!(count(&world, "return.spare"), spare + 1);
        give(cache, [used, object]);
        end(slabs, cache);
    });
    taken(&world)
}

#[test]
fn prefilled_from_sheaves_barn_and_slabs() {
    from_everywhere();
}

/// Where a cache has no sheaves, prefilled ones work the same.
#[test]
fn of_a_cache_without_sheaves() {
    let world = alone();
    world.run(|slabs| {
        for flags in [Flags::NO_MERGE, Flags::POISON | Flags::RED_ZONE] {
            let spec = Spec::new("none", 64).sheaf_capacity(0).flags(flags);
            let cache = slabs.create(&spec).expect("a cache");
            let mut sheaf = cache.prefill(Gfp::KERNEL, 5).expect("memory");
            assert_eq!(sheaf.len(), 5);
            let objects: Vec<_> = (0..3).map(|_| sheaf.alloc(Gfp::KERNEL)).collect();
            assert!(sheaf.refill(Gfp::KERNEL, 4) && sheaf.len() == 4);
            drop(sheaf);
            for object in objects.into_iter().flatten() {
                // SAFETY: of this cache, and not used.
                unsafe { cache.free(object) };
            }
            end(slabs, cache);
        }
    });
}
