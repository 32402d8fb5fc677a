//! Many objects at a time.

use std::collections::BTreeSet;

use mm::{Gfp, hosted::Memory, slab::Spec};
use platform::hosted::Machine;

use crate::{
    arrows::count,
    objects::{alloc_bulk, free_bulk, give, take},
    paths::{alone, end, small_sheaves},
    world::{MIB, World},
};

/// Any number, from sheaves, the barn and slabs, and none twice.
#[test]
fn any_number_and_none_twice() {
    let world = alone();
    world.run(|slabs| {
        let cache = small_sheaves(slabs, "any");
        for number in [1, 2, 3, 4, 5, 8, 9, 31, 100, 63, 1000] {
            let objects = alloc_bulk(cache, Gfp::KERNEL, number).expect("memory");
            let distinct: BTreeSet<_> = objects.iter().map(|object| object.0).collect();
            assert_eq!(distinct.len(), number);
            free_bulk(cache, objects);
        }
        assert_eq!(cache.alloc_bulk(Gfp::KERNEL, &mut []), 0);
        // SAFETY: nothing is freed.
        unsafe { cache.free_bulk(&[]) };
        // One by one what was many, and the other way round.
        let objects = alloc_bulk(cache, Gfp::KERNEL, 50).expect("memory");
        give(cache, objects);
        let objects = take(cache, 50);
        free_bulk(cache, objects);
        end(slabs, cache);
    });
}

/// What the sheaves and the barn have is taken from there, and the slabs are not asked.
#[test]
fn sheaves_first() {
    let world = alone();
    world.run(|slabs| {
        let cache = slabs.create(&Spec::new("first", 64)).expect("a cache");
        let objects = alloc_bulk(cache, Gfp::KERNEL, 500).expect("memory");
        free_bulk(cache, objects);
        let taken = count(&world, "slab.take_all") + count(&world, "slab.take_part");
        let objects = alloc_bulk(cache, Gfp::KERNEL, 500).expect("memory");
        assert_eq!(
            count(&world, "slab.take_all") + count(&world, "slab.take_part"),
            taken
        );
        free_bulk(cache, objects);
        end(slabs, cache);
    });
}

/// All or nothing: what there is of too much goes back.
#[test]
fn all_or_nothing() {
    let world = World::new(Machine::builder(), Memory::builder().node(8 * MIB));
    world.run(|slabs| {
        let cache = slabs.create(&Spec::new("all", 1024)).expect("a cache");
        let gfp = Gfp::KERNEL | Gfp::NOWARN;
        assert!(
            alloc_bulk(cache, gfp, 8 << 10).is_none(),
            "more than there is"
        );
        // All of it is there again.
        let objects = alloc_bulk(cache, gfp, 5 << 10).expect("memory");
        free_bulk(cache, objects);
        end(slabs, cache);
    });
}
