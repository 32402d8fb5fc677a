//! One CPU: objects come and go in any order, and slabs with them.

use std::ptr::NonNull;

use mm::{
    Gfp,
    hosted::Memory,
    slab::{Flags, KmemCache, Slab, Spec},
};
use platform::{
    NodeId,
    hosted::{Hosted, Machine},
};

use super::{
    contents::{Filled, Random},
    quiet::{check, slabs_of},
    world::{MIB, World, rounds},
};

/// A cache without sheaves, that is no other's alias.
pub fn plain<'a>(name: &'a str, size: usize) -> Spec<'a> {
    Spec::new(name, size)
        .flags(Flags::NO_MERGE)
        .sheaf_capacity(0)
}

fn take(cache: &KmemCache<Hosted>) -> NonNull<u8> {
    cache.alloc(Gfp::KERNEL).expect("memory for an object")
}

fn free(cache: &KmemCache<Hosted>, object: NonNull<u8>) {
    // SAFETY: allocated by the test, which does not use it any more.
    unsafe { cache.free(object) };
}

/// Random allocations and frees of objects of many sizes, each full of its own pattern: nobody else writes there; and after every
/// few steps words, lists and counts agree.
#[test]
fn objects_come_and_go() {
    for (hardened, shuffled) in [(false, false), (true, false), (false, true), (true, true)] {
        let world = World::small();
        world.run(|slabs| {
            slabs.debug().set_hardened(hardened);
            slabs.debug().set_shuffled(shuffled);
            for size in [1, 8, 24, 200, 1000, 4096, 9000, 40_000] {
                let cache = slabs.create(&plain("test", size)).unwrap();
                let mut random = Random(size as u64);
                let mut held: Vec<Filled> = Vec::new();
                let steps = rounds(5000, 300);
                // A third of the memory.
                let most = (10 * MIB) as usize / size.next_power_of_two();
                for step in 0..steps {
                    // More and more, then fewer and fewer.
                    let grows = random.below(steps) > step && held.len() < most;
                    if grows {
                        held.push(Filled::new(cache, take(cache), random.next()));
                    } else if !held.is_empty() {
                        let at = random.below(held.len() as u64) as usize;
                        free(cache, held.swap_remove(at).verify());
                    }
                    if step % 100 == 0 {
                        check(slabs, cache, &Filled::all(&held));
                    }
                }
                for filled in held {
                    free(cache, filled.verify());
                }
                check(slabs, cache, &[]);
                cache.shrink();
                check(slabs, cache, &[]);
                assert!(slabs_of(slabs, cache).is_empty(), "shrunk to nothing");
                // SAFETY: nobody uses it.
                unsafe { slabs.destroy(cache) }.unwrap();
            }
        });
    }
}

/// Empty slabs are kept up to the minimum, and no more.
#[test]
fn empty_slabs_are_kept_to_a_minimum() {
    let world = World::new(Machine::builder().cpus(1), Memory::builder().node(32 * MIB));
    world.run(|slabs| {
        let cache = slabs.create(&plain("test", 512)).unwrap();
        let held: Vec<_> = (0..1000).map(|_| take(cache)).collect();
        check(slabs, cache, &held);
        assert!(slabs_of(slabs, cache).len() > 20);
        for object in held {
            free(cache, object);
        }
        check(slabs, cache, &[]);
        assert_eq!(slabs_of(slabs, cache).len(), 5);
        assert!(cache.shrink() > 0);
        assert!(slabs_of(slabs, cache).is_empty());
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}

/// After a shrink the slabs with the fewest free objects are used up first.
#[test]
fn a_shrink_sorts() {
    let world = World::new(Machine::builder().cpus(1), Memory::builder().node(32 * MIB));
    world.run(|slabs| {
        let cache = slabs.create(&plain("test", 256)).unwrap();
        let each = usize::from(cache.layout().objects);
        let mut held: Vec<_> = (0..4 * each).map(|_| take(cache)).collect();
        held.sort_unstable();
        // Of each slab another number of objects is freed: 3, 1, 4, 2.
        let mut left = Vec::new();
        for (slab, gone) in held.chunks(each).zip([3, 1, 4, 2]) {
            slab[..gone].iter().for_each(|object| free(cache, *object));
            left.extend_from_slice(&slab[gone..]);
        }
        cache.shrink();
        check(slabs, cache, &left);
        let map = *slabs.mm().frames();
        let slab_of = |object: NonNull<u8>| Slab::<Hosted>::of_address(map, object.addr().get());
        let order: Vec<_> = (0..10).map(|_| take(cache)).collect();
        let runs: Vec<usize> = order
            .chunk_by(|a, b| slab_of(*a) == slab_of(*b))
            .map(<[_]>::len)
            .collect();
        assert_eq!(runs, [1, 2, 3, 4]);
        for object in left.into_iter().chain(order) {
            free(cache, object);
        }
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}

/// An object comes from the node that is asked for; from another one when that has no memory, unless that is forbidden.
#[test]
fn nodes_are_as_asked_for() {
    let world = World::small();
    world.run(|slabs| {
        let cache = slabs.create(&plain("test", 2000)).unwrap();
        let map = *slabs.mm().frames();
        let node_of = |object: NonNull<u8>| {
            let slab = Slab::<Hosted>::of_address(map, object.addr().get()).unwrap();
            slab.frame().word().zone().node()
        };
        let nodes = [0, 1].map(|index| NodeId::from_index(index).unwrap());
        let mut held = Vec::new();
        for turn in 0..40 {
            let node = nodes[turn % 2];
            let object = cache.alloc_node(Gfp::KERNEL, node).unwrap();
            assert_eq!(node_of(object), node);
            held.push(object);
        }
        check(slabs, cache, &held);
        // All of node 1, and then some.
        let gfp = Gfp::NOWAIT;
        while let Some(object) = cache.alloc_node(gfp | Gfp::THISNODE, nodes[1]) {
            assert_eq!(node_of(object), nodes[1]);
            held.push(object);
        }
        let elsewhere = cache
            .alloc_node(gfp, nodes[1])
            .expect("memory on the other node");
        assert_eq!(node_of(elsewhere), nodes[0]);
        held.push(elsewhere);
        check(slabs, cache, &held);
        for object in held {
            free(cache, object);
        }
        check(slabs, cache, &[]);
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}

/// With the switch on the objects of fresh slabs come in another order in each slab; without, one behind the other.
#[test]
fn the_order_in_fresh_slabs() {
    let world = World::new(Machine::builder().cpus(1), Memory::builder().node(32 * MIB));
    world.run(|slabs| {
        let cache = slabs.create(&plain("test", 128)).unwrap();
        let each = usize::from(cache.layout().objects);
        let mut held = Vec::new();
        let mut order_in_a_slab = || -> Vec<usize> {
            let objects: Vec<_> = (0..each).map(|_| take(cache)).collect();
            let first = *objects.iter().min().unwrap();
            let index = |object: &NonNull<u8>| cache.layout().index_at(first, *object);
            held.extend_from_slice(&objects);
            objects.iter().map(index).collect()
        };
        let in_order: Vec<usize> = (0..each).collect();
        assert_eq!(order_in_a_slab(), in_order);
        slabs.debug().set_shuffled(true);
        let shuffled = [order_in_a_slab(), order_in_a_slab()];
        assert!(shuffled[0] != shuffled[1] && shuffled[0] != in_order);
        for mut order in shuffled {
            order.sort_unstable();
            assert_eq!(order, in_order, "each object once");
        }
        for object in held {
            free(cache, object);
        }
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}

/// All orders are equally likely, as far as a count of those of 3 objects can tell.
#[test]
fn shuffles_are_fair() {
    let world = World::new(Machine::builder().cpus(1), Memory::builder().node(32 * MIB));
    world.run(|slabs| {
        slabs.debug().set_shuffled(true);
        let cache = slabs.create(&plain("test", 10_000)).unwrap();
        assert_eq!(cache.layout().objects, 3);
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..1200 {
            let objects: Vec<_> = (0..3).map(|_| take(cache)).collect();
            let first = *objects.iter().min().unwrap();
            let index = |object: &NonNull<u8>| cache.layout().index_at(first, *object);
            let order: Vec<usize> = objects.iter().map(index).collect();
            *seen.entry(order).or_insert(0) += 1;
            for object in objects {
                free(cache, object);
            }
            cache.shrink();
        }
        assert_eq!(seen.len(), 6);
        // 200 are expected of each, with a deviation of 13.
        assert!(
            seen.values().all(|times| (120..280).contains(times)),
            "{seen:?}"
        );
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}

/// What is seen of the list at a glance, without its lock, follows it: no fresh slab while an object is free, and no
/// look at a list without slabs.
#[test]
fn the_glance_follows_the_list() {
    let world = World::new(Machine::builder().cpus(1), Memory::builder().node(32 * MIB));
    world.run(|slabs| {
        let cache = slabs.create(&plain("test", 512)).unwrap();
        let each = usize::from(cache.layout().objects);
        let mut held: Vec<_> = (0..each).map(|_| take(cache)).collect();
        assert_eq!(slabs_of(slabs, cache).len(), 1);
        for _ in 0..3 {
            free(cache, held[2]);
            assert_eq!(take(cache), held[2]);
        }
        assert_eq!(slabs_of(slabs, cache).len(), 1);
        let node = NodeId::from_index(0).unwrap();
        let locked = || cache.node_counts(node).unwrap().list_locked;
        let before = locked();
        held.push(take(cache));
        assert_eq!(slabs_of(slabs, cache).len(), 2);
        // To list the fresh slab, and to take from it.
        assert_eq!(locked() - before, 2);
        for object in held {
            free(cache, object);
        }
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}
